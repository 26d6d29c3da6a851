"""Receipts: messages are told to have arrived without waiting for the answer, and never after their own answer."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pytest

from i3tasks.broker import receipts
from i3tasks.broker.clients import api
from i3tasks.broker.receipts import Receipts
from i3tasks.broker.receiver import Incoming
from i3tasks.broker.streaming import _Subscriber
from i3tasks.telemetry import subscribe
from tests.broker.conftest import SECONDS, Broker, eventually
from tests.broker.receiving import Deliveries, receiving


class Sent:
    """Notes the requests, each of which takes until `go_on` is set."""

    def __init__(self) -> None:
        self.requests: list[tuple[list[str], int]] = []
        self.errors: list[Exception] = []
        self.begun = threading.Event()
        self.go_on = threading.Event()
        self.go_on.set()

    def __call__(self, ack_ids: Sequence[str], seconds: int) -> None:
        self.begun.set()
        assert self.go_on.wait(SECONDS)
        self.requests.append((sorted(ack_ids), seconds))
        if self.errors:
            raise self.errors.pop()


@pytest.fixture
def sent() -> Sent:
    return Sent()


def wait_until_told(receipts: Receipts) -> None:
    eventually(lambda: not receipts._times._later and receipts._times.flush(0), "the receipts are told")


# --------------------------------------------------------------------------------------------- by themselves


def test_those_of_a_moment_are_told_together(sent: Sent) -> None:
    told = Receipts(sent)
    told.put(["a", "b"], 10)
    told.put(["c"], 10)
    told.put(["d"], 60)
    wait_until_told(told)
    assert sorted(sent.requests) == [(["a", "b", "c"], 10), (["d"], 60)]
    assert not any(told._waiting.values())


def test_what_is_answered_by_then_is_left_out(sent: Sent) -> None:
    told = Receipts(sent)
    told.put(["a", "b"], 10)
    told.put(["c"], 60)
    told.answered(["a", "c", "never seen"])
    wait_until_told(told)
    assert sent.requests == [(["b"], 10)]


def test_a_nack_waits_for_a_receipt_that_is_under_way(sent: Sent) -> None:
    told = Receipts(sent)
    sent.go_on.clear()
    told.put(["a"], 10)
    assert sent.begun.wait(SECONDS)
    told.answered(["a"])  # an ack need not wait
    nack = threading.Thread(target=lambda: told.answered(["a"], wait=True))
    nack.start()
    nack.join(0.05)
    assert nack.is_alive()
    told.answered(["b"], wait=True)  # nor does the nack of another
    sent.go_on.set()
    nack.join(SECONDS)
    assert not nack.is_alive()
    assert sent.requests == [(["a"], 10)]


def test_what_is_nacked_during_another_request_is_left_out_of_the_next(
    sent: Sent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receipts, "MOST_IDS", 1)
    told = Receipts(sent)
    sent.go_on.clear()
    told.put(["a", "b"], 10)
    assert sent.begun.wait(SECONDS)
    [first] = told._being_told
    told.answered({"a", "b"} - {first}, wait=True)
    sent.go_on.set()
    wait_until_told(told)
    assert sent.requests == [([first], 10)]


def test_its_thread_ends_soon(sent: Sent) -> None:
    told = Receipts(sent)
    told.put(["a"], 10)
    wait_until_told(told)
    eventually(lambda: told._times._thread is None, "the idle thread has ended")


@pytest.mark.parametrize("error", [api.ServiceUnavailable("away"), api.NotFound("gone"), api.Cancelled("closed")])
def test_an_error_costs_one_receipt(sent: Sent, error: Exception) -> None:
    told = Receipts(sent)
    sent.errors = [error]
    told.put(["a"], 10)
    told.put(["b"], 60)
    wait_until_told(told)
    told.put(["c"], 10)
    wait_until_told(told)
    assert sent.requests == [(["a"], 10), (["b"], 60), (["c"], 10)]


def test_an_error_that_is_a_bug_is_reported_and_costs_no_later_receipt(sent: Sent) -> None:
    told = Receipts(sent)
    sent.errors = [TypeError("a bug")]
    names: list[str] = []
    unsubscribe = subscribe(lambda event, facts: names.append(event.name))
    told.put(["a"], 10)
    wait_until_told(told)
    unsubscribe()
    assert names == ["internal_error"]
    told.put(["b"], 10)
    wait_until_told(told)
    assert sent.requests == [(["a"], 10), (["b"], 10)]


def test_a_request_has_a_bounded_number(sent: Sent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receipts, "MOST_IDS", 2)
    told = Receipts(sent)
    told.put("abcde", 10)
    wait_until_told(told)
    assert [len(ack_ids) for ack_ids, _ in sent.requests] == [2, 2, 1]
    assert {one for ack_ids, _ in sent.requests for one in ack_ids} == {*"abcde"}


# ------------------------------------------------------------------------------------------------ on a stream


class Extensions:
    """Requests for more time, which get no answer while they are held."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[int] = []
        self.free = threading.Event()
        extend = _Subscriber.extend

        def held(client: Any, *args: Any, **kwargs: Any) -> Any:
            self.asked.append(kwargs["ack_deadline_seconds"])
            self.free.wait(SECONDS)
            return extend(client, *args, **kwargs)

        monkeypatch.setattr(_Subscriber, "extend", held)


@pytest.fixture
def extensions(monkeypatch: pytest.MonkeyPatch) -> Any:
    held = Extensions(monkeypatch)
    yield held
    held.free.set()


async def test_a_message_does_not_wait_for_the_answer_to_its_receipt(broker: Broker, extensions: Extensions) -> None:
    broker.ensure()
    deliveries = Deliveries()
    async with receiving(broker, deliveries):
        broker.publish(b"one", b"two").wait()
        await deliveries.until(lambda: {*deliveries.data} == {b"one", b"two"})
        await asyncio.to_thread(eventually, lambda: extensions.asked != [], "they are told all the same")
        extensions.free.set()
        for incoming in deliveries.all:
            incoming.ack()


@pytest.mark.parametrize("answer", [Incoming.ack, Incoming.nack])
async def test_what_is_answered_at_once_needs_no_receipt(
    broker: Broker, monkeypatch: pytest.MonkeyPatch, answer: Callable[[Incoming], None]
) -> None:
    monkeypatch.setattr(receipts, "GATHER_SECONDS", 60.0)
    noted: list[str] = []
    made: list[Receipts] = []

    class Noting(Receipts):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            made.append(self)

        def put(self, ack_ids: Iterable[str], seconds: int) -> None:
            noted.extend(ack_ids := [*ack_ids])
            super().put(ack_ids, seconds)

    monkeypatch.setattr("i3tasks.broker.streaming.Receipts", Noting)
    broker.ensure()
    deliveries = Deliveries(answer)
    async with receiving(broker, deliveries):
        broker.publish(*(b"%d" % number for number in range(20))).wait()
        await deliveries.until(lambda: len({*deliveries.data}) == 20)
    assert noted, "they came in the thread that receives, and it did not wait"
    assert not [waiting for each in made for waiting in each._waiting.values() if waiting]


async def test_one_that_is_delivered_exactly_once_waits_until_its_lease_is_confirmed(
    broker: Broker, extensions: Extensions
) -> None:
    broker.ensure()
    with broker.admin() as admin:
        change = {"name": broker.queue.subscription, "enable_exactly_once_delivery": True}
        admin.subscriber.update_subscription(
            request={"subscription": change, "update_mask": {"paths": ["enable_exactly_once_delivery"]}}
        )
    deliveries = Deliveries(Incoming.ack)
    async with receiving(broker, deliveries):
        broker.publish(b"one").wait()
        with pytest.raises(TimeoutError):
            await deliveries.until(lambda: bool(deliveries.all), 1.0)
        assert extensions.asked != []
        extensions.free.set()
        await deliveries.count(1)
