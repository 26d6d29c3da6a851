"""The kept certificates: fetched once, served while old, fetched anew for a new key, and not too often."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace
from typing import Any

import pytest

from i3tasks.broker.auth import fetching
from i3tasks.broker.auth.certificates import CertificateCache
from i3tasks.broker.auth.errors import CertificatesUnavailable
from i3tasks.broker.auth.fetching import Fetched, fetch_from
from i3tasks.core.clock import SYSTEM_CLOCK
from tests.support.oidc import Issuer, key, serving


class Source:
    """Fetches that a test decides about."""

    def __init__(self) -> None:
        self.certificates: dict[str, str] | None = {"k1": "one"}
        self.fetches = 0
        self.threads: set[str] = set()
        self.open = threading.Event()
        self.open.set()
        self.time = 1_000.0
        self.cache = CertificateCache(self._fetch, replace(SYSTEM_CLOCK, monotonic=lambda: self.time))

    def _fetch(self) -> Fetched:
        self.fetches += 1
        self.threads.add(threading.current_thread().name)
        found = self.certificates
        assert self.open.wait(30)
        if found is None:
            raise CertificatesUnavailable("away")
        return Fetched(found, 600)

    async def settled(self) -> None:
        """No fetch is under way."""
        while self.cache._under_way is not None:
            await asyncio.wait({asyncio.wrap_future(self.cache._under_way)})


@pytest.fixture
def source() -> Source:
    return Source()


async def test_one_fetch_serves_until_it_is_old(source: Source) -> None:
    found = await asyncio.gather(*(source.cache.find("k1") for _ in range(50)))
    assert (found, source.fetches) == (["one"] * 50, 1)
    source.time += 599
    assert await source.cache.find("k1") == "one"
    await source.settled()
    assert source.fetches == 1
    assert source.threads == {"i3tasks-certificates"}, "off the loop"


async def test_an_old_copy_is_served_while_another_is_fetched(source: Source) -> None:
    await source.cache.find("k1")
    source.time += 601
    source.open.clear()
    assert await asyncio.wait_for(source.cache.find("k1"), 5) == "one"
    assert await asyncio.wait_for(source.cache.find("k1"), 5) == "one"
    source.open.set()
    await source.settled()
    assert source.fetches == 2


async def test_an_old_copy_is_served_for_as_long_as_none_is_to_be_had(source: Source, events: list[str]) -> None:
    await source.cache.find("k1")
    source.certificates = None
    for _ in range(10):
        source.time += 86_400
        assert await source.cache.find("k1") == "one"
        await source.settled()
    assert source.fetches == 11
    assert set(events) == {"certificates_unavailable"}


async def test_while_it_is_away_it_is_asked_now_and_then(source: Source) -> None:
    source.certificates = None
    for _ in range(5):
        with pytest.raises(CertificatesUnavailable, match="away"):
            await source.cache.find("k1")
    assert source.fetches == 1
    source.time += 1.1
    source.certificates = {"k1": "one"}
    assert await source.cache.find("k1") == "one"


async def test_an_unknown_key_has_them_fetched_once_in_30_seconds(source: Source) -> None:
    await source.cache.find("k1")
    for _ in range(20):
        assert await source.cache.find("k2") is None
    assert source.fetches == 2
    source.time += 29
    assert await source.cache.find("k3") is None
    assert source.fetches == 2
    source.time += 2
    source.certificates = {"k3": "three"}
    assert await source.cache.find("k3") == "three"
    assert source.fetches == 3


async def test_a_rotation_under_load_is_one_fetch_and_no_refusal(source: Source) -> None:
    await source.cache.find("k1")
    source.certificates = {"k1": "one", "k2": "two"}
    found = await asyncio.gather(*(source.cache.find("k2" if number % 2 else "k1") for number in range(200)))
    assert found == ["one", "two"] * 100
    assert source.fetches == 2


async def test_a_rotation_during_a_fetch_is_seen(source: Source) -> None:
    """The fetch that is under way began before the key was there."""
    await source.cache.find("k1")
    source.time += 601
    source.open.clear()
    assert await source.cache.find("k1") == "one"
    source.certificates = {"k2": "two"}
    waiting = asyncio.gather(*(source.cache.find("k2") for _ in range(10)))
    await asyncio.sleep(0)
    source.open.set()
    assert await waiting == ["two"] * 10


async def test_an_unknown_key_while_the_certificates_cannot_be_fetched(source: Source) -> None:
    await source.cache.find("k1")
    source.certificates = None
    for _ in range(3):
        with pytest.raises(CertificatesUnavailable, match="away"):
            await source.cache.find("k2")
        assert await source.cache.find("k1") == "one"
    assert source.fetches == 2


async def test_a_fetch_that_hangs_keeps_no_request(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("i3tasks.broker.auth.certificates.WAIT_SECONDS", 0.01)
    source.open.clear()
    with pytest.raises(CertificatesUnavailable, match="could not be fetched"):
        await source.cache.find("k1")
    source.open.set()
    await source.settled()
    assert await source.cache.find("k1") == "one"


def test_several_loops_share_one_fetch(source: Source) -> None:
    source.open.clear()
    found: list[str | None] = []
    threads = [threading.Thread(target=lambda: found.append(asyncio.run(source.cache.find("k1")))) for _ in range(5)]
    for thread in threads:
        thread.start()
    source.open.set()
    for thread in threads:
        thread.join(30)
    assert found == ["one"] * 5
    assert source.fetches == 1


async def test_a_request_that_is_cancelled_ends_no_fetch(source: Source) -> None:
    source.open.clear()
    first, second = (asyncio.ensure_future(source.cache.find("k1")) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.sleep(0)
    source.open.set()
    assert await second == "one"


async def test_a_bug_in_a_fetch_is_an_answer_too(source: Source) -> None:
    source.certificates = 7  # type: ignore[assignment]
    source.cache._fetch = lambda: 1 / 0  # type: ignore[assignment, return-value]
    with pytest.raises(CertificatesUnavailable, match="ZeroDivisionError"):
        await source.cache.find("k1")


# ------------------------------------------------------------------------------------------------------- over HTTP


@pytest.mark.parametrize(("said", "kept"), [(7_200, 7_200.0), (0, 60.0), (10**8, 86_400.0)])
def test_they_are_kept_for_as_long_as_the_answer_says(said: int, kept: float) -> None:
    with serving() as issuer:
        issuer.max_age = said
        assert fetch_from(issuer.url) == Fetched({"k1": key("k1").certificate}, kept)


ANSWERS: dict[str, tuple[int, Any]] = {
    "an error": (500, b"{}"),
    "no JSON": (200, b"<html>"),
    "no object": (200, b"[]"),
    "nothing": (200, b"{}"),
    "no text": (200, b'{"k1": 1}'),
    "no certificates": (200, b'{"k1": "hello"}'),
    "a key set": (200, b'{"keys": [{"kid": "k1"}]}'),
    "broken": (200, key("k1").certificate.replace("MII", "XXX").join(['{"k1": "', '"}']).replace("\n", "\\n").encode()),
    "deep": (200, b"[" * 500_000),
    "large": (200, b" " * (fetching.LARGEST_ANSWER + 1)),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_an_answer_without_certificates_is_an_outage(name: str) -> None:
    with serving() as issuer:
        issuer.answer = ANSWERS[name]
        with pytest.raises(CertificatesUnavailable, match=issuer.url):
            fetch_from(issuer.url)


def test_no_server_listens() -> None:
    with pytest.raises(CertificatesUnavailable, match="No certificates from"):
        fetch_from("http://127.0.0.1:1/certs")


def test_the_issuer_of_these_tests_counts() -> None:
    with serving() as issuer:
        assert isinstance(issuer, Issuer)
        fetch_from(issuer.url)
        assert issuer.fetches == 1
