"""The wire format: byte for byte what django-i3tasks reads and writes, and no message can do more than be refused."""

import codecs
import encodings
import json
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from i3tasks.core.envelope import Envelope, attributes
from i3tasks.exceptions import EnvelopeError

META = {
    "bind": False,
    "encoding": "utf-8",
    "module_name": "shop.tasks",
    "func_name": "add",
    "task_execution_id": 1,
    "task_execution_try_id": 1,
}
# The line of django-i3tasks's documents.
DOCUMENTED = (
    b'{"args": [], "kwargs": {}, "meta_info": {"bind": false, "encoding": "utf-8", "module_name": "shop.tasks", '
    b'"func_name": "add", "task_execution_id": 1, "task_execution_try_id": 1}}'
)
ADD = Envelope(1, 1, "shop.tasks", "add")


def message(**changes: Any) -> bytes:
    meta = {key: value for key, value in {**META, **changes}.items() if value != "MISSING"}
    return json.dumps({"args": [], "kwargs": {}, "meta_info": meta}).encode()


def test_what_we_write_is_the_documented_line() -> None:
    assert ADD.to_bytes() == DOCUMENTED


def test_what_django_i3tasks_writes_is_read() -> None:
    old = json.dumps({"args": [1, "é"], "kwargs": {"x": None}, "meta_info": {**META, "bind": True, "new": 1}})
    assert Envelope.from_bytes(old.encode()) == Envelope(1, 1, "shop.tasks", "add", bind=True)


def test_attributes_are_the_documented_ones() -> None:
    assert attributes(datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC)) == {
        "encoding": "utf-8",
        "pub_time": "2026-01-02T03:04:05.000006+00:00",
    }


@pytest.mark.parametrize("encoding", ["utf-8", "UTF8", "utf_8"])
def test_utf8_may_be_spelt_in_several_ways(encoding: str) -> None:
    assert Envelope.from_bytes(DOCUMENTED, encoding) == ADD


@pytest.mark.parametrize("encoding", ["utf-16", "latin-1", "punycode", "idna", "zip", "no-such-" * 100_000])
def test_a_sender_does_not_choose_the_codec(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def looked_up(name: str) -> None:
        raise AssertionError(f"{name:.20} was looked up, and Python keeps what it does not find")

    monkeypatch.setattr(encodings, "_cache", {})  # whatever was looked up before
    monkeypatch.setattr(codecs, "lookup", looked_up)
    with pytest.raises(EnvelopeError, match="must be utf-8") as refused:
        Envelope.from_bytes(DOCUMENTED.decode().encode("latin-1"), encoding)
    assert len(str(refused.value)) < 200
    assert encoding not in encodings._cache  # type: ignore[attr-defined]


@pytest.mark.parametrize("field", ["module_name", "func_name"])
def test_names_are_no_longer_than_a_row_holds(field: str) -> None:
    Envelope.from_bytes(message(**{field: "x" * 256}))
    with pytest.raises(EnvelopeError, match="1 to 256 characters") as refused:
        Envelope.from_bytes(message(**{field: "x" * 257}))
    assert len(str(refused.value)) < 250


names = st.text(min_size=1, max_size=256)
ids = st.integers(1, 2**63 - 1)


@given(st.builds(Envelope, ids, ids, names, names, st.booleans()))
def test_an_envelope_survives_its_travel(envelope: Envelope) -> None:
    assert Envelope.from_bytes(envelope.to_bytes()) == envelope


def nested(depth: int) -> bytes:
    return message().replace(b'"task_execution_id": 1', b'"task_execution_id": ' + b"[" * depth + b"]" * depth)


MALFORMED = [
    (b"", "not JSON"),
    (b"{", "not JSON"),
    (b"\xff\xfe", "not 'utf-8' text"),
    (b"[]", "no `meta_info` object"),
    (b"null", "no `meta_info` object"),
    (b'"meta_info"', "no `meta_info` object"),
    (b"{}", "no `meta_info` object"),
    (b'{"meta_info": []}', "no `meta_info` object"),
    (b"1" * 5000, "not JSON"),
    (b"[" * 200_000, "not JSON"),
    *(
        (message(**{field: value}), field)
        for field in ("task_execution_id", "task_execution_try_id")
        for value in (0, -1, 2**63, True, "1", 1.0, None, [], {}, "MISSING")
    ),
    *(
        (message(**{field: value}), field)
        for field in ("module_name", "func_name")
        for value in ("", 1, None, ["shop.tasks"], "MISSING")
    ),
]


@pytest.mark.parametrize(("data", "why"), MALFORMED, ids=[f"{data[-60:]!r}"[:60] for data, _ in MALFORMED])
def test_a_malformed_message_is_refused_in_words(data: bytes, why: str) -> None:
    with pytest.raises(EnvelopeError, match=why):
        Envelope.from_bytes(data)


@pytest.mark.parametrize(
    "encoding", ["", "no-such", "hex", "base64", "rot13", "utf\x008", "\ud800", "idna", "undefined"]
)
def test_an_encoding_that_is_none_is_refused(encoding: str) -> None:
    with pytest.raises(EnvelopeError):
        Envelope.from_bytes(b"\xff" + DOCUMENTED, encoding)


def read(data: bytes, encoding: str = "utf-8") -> None:
    with suppress(EnvelopeError):
        Envelope.from_bytes(data, encoding)


def test_no_depth_of_nesting_gets_past_the_refusal() -> None:
    for depth in [*range(1, 1100, 7), 5000, 50_000]:
        read(nested(depth))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@given(st.binary(), st.text())
@example(DOCUMENTED, "utf-7")
def test_bytes_never_raise_anything_else(data: bytes, encoding: str) -> None:
    read(data)
    read(data, encoding)


@given(st.fixed_dictionaries({}, optional=dict.fromkeys(META, json_values)))
def test_json_never_raises_anything_else(changes: dict[str, Any]) -> None:
    read(message(**changes))
    read(json.dumps(changes).encode())
