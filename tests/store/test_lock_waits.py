"""What is said of requests whose rows stay locked, and what becomes of them."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from i3tasks.core.clock import current_clock
from i3tasks.exceptions import StoreUnavailable
from i3tasks.store.delivering import Item
from i3tasks.store.lock_waits import CLAIM_SECONDS, NAMED, LockWaits
from i3tasks.store.operations import CLAIM, CONFIRM, READ_PAUSES, SETTLE, Operation
from i3tasks.store.requests import LOCKED, Refusal
from i3tasks.telemetry import subscribe


@pytest.fixture
def said() -> Iterator[list[dict[str, Any]]]:
    events: list[dict[str, Any]] = []
    unsubscribe = subscribe(lambda event, facts: events.append(dict(facts)), ["rows_locked"])
    yield events
    unsubscribe()


def waiting(operation: Operation[Any, Any], try_id: int | None = None, waited: float = CLAIM_SECONDS) -> Item:
    request = None if try_id is None else SimpleNamespace(try_id=try_id)
    return Item(operation, request, delay=1.0, waited=waited)


def put_back(*items: Item, has_room: bool = True) -> list[Any]:
    answers = LockWaits(lambda item, delay: has_room, current_clock).put_back((item, LOCKED) for item in items)
    return [answer for _, answer in answers]


def test_the_event_tells_how_long_they_have_waited_by_now(said: list[dict[str, Any]]) -> None:
    assert put_back(waiting(SETTLE, 1, 1.3), waiting(CLAIM, 2, 1.1)) == [Refusal.LOCKED]
    assert said == [said[0] | {"tries": [1, 2], "seconds": 1.3}]


def test_each_try_is_named_once_whatever_else_waits(said: list[dict[str, Any]]) -> None:
    put_back(*[waiting(READ_PAUSES)] * NAMED, waiting(CONFIRM, 7), waiting(SETTLE, 7), waiting(SETTLE, 8))
    assert said[0]["tries"] == [7, 8]


def test_no_more_than_some_are_named(said: list[dict[str, Any]]) -> None:
    put_back(*[waiting(SETTLE, number) for number in range(2 * NAMED)])
    assert said[0]["tries"] == [*range(NAMED)]


def test_of_a_short_wait_nothing_is_said(said: list[dict[str, Any]]) -> None:
    assert put_back(waiting(CLAIM, 1, CLAIM_SECONDS / 2)) == []
    assert said == []


def test_what_finds_no_room_is_refused() -> None:
    [answer] = put_back(waiting(SETTLE, 1), has_room=False)
    assert isinstance(answer, StoreUnavailable)
