"""A stream's health: trouble is told once, and so is its end."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from i3tasks.broker.errors import BrokerMissing, BrokerUnavailable
from i3tasks.broker.stream_health import MANY, STEADY_SECONDS, Quiet, StreamHealth
from i3tasks.core.clock import SYSTEM_CLOCK

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.broker.conftest import Events


class Time:
    now = 100.0


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def health(time: Time) -> Iterator[StreamHealth]:
    health = StreamHealth("default", "projects/p/subscriptions/s", replace(SYSTEM_CLOCK, monotonic=lambda: time.now))
    yield health
    health.close()


async def test_a_stream_that_lasts_and_is_opened_again_is_well(
    health: StreamHealth, time: Time, events: Events
) -> None:
    health.opened()
    time.now += STEADY_SECONDS + 1
    health.opened()

    assert events.named("broker_unavailable") == []


async def test_streams_that_end_at_once_are_trouble_until_a_message_comes(health: StreamHealth, events: Events) -> None:
    for _ in range(5):
        health.opened()
        health.connected(True)
    [facts] = events.named("broker_unavailable")
    assert "again and again" in facts["error"]
    assert events.named("broker_recovered") == []

    health.well()
    health.well()

    assert events.named("broker_recovered") == [{"queue": "default"}]


async def test_a_connection_that_fails_is_trouble_until_it_is_there(health: StreamHealth, events: Events) -> None:
    health.opened()
    health.connected(False)
    health.connected(False)
    health.connected(True)
    health.connected(True)

    assert len(events.named("broker_unavailable")) == 1
    assert len(events.named("broker_recovered")) == 1


async def test_each_kind_of_failure_is_told_once(health: StreamHealth, events: Events) -> None:
    for error in (BrokerUnavailable("a"), BrokerUnavailable("b"), BrokerMissing("c"), BrokerMissing("d")):
        health.failed(error)
    health.well()

    assert [facts["error"] for facts in events.named("broker_unavailable")] == ["a", "c"]
    assert events.named("receiver_restarted") == [{"queue": "default"}]


async def test_nothing_is_told_after_the_end(health: StreamHealth, events: Events) -> None:
    health.opened()
    health.close()
    health.opened()
    health.connected(False)

    assert events.named("broker_unavailable") == []


class Ages:
    """A receiver of at most 50 messages at a time and a patience of 15 s, to which messages of some age come."""

    def __init__(self, time: Time, most_messages: int = 50) -> None:
        self._time = time
        self.quiet = Quiet(replace(SYSTEM_CLOCK, monotonic=lambda: time.now), 15, most_messages)

    def come(self, number: int, *, every: float, age: float) -> None:
        for _ in range(number):
            self._time.now += every
            self.quiet.arrived(SYSTEM_CLOCK.now() - timedelta(seconds=age))


def test_a_backlog_that_moves_is_not_quiet(time: Time) -> None:
    ages = Ages(time)
    ages.come(MANY, every=0.7, age=60)
    assert ages.quiet.seconds == 0


def test_a_few_old_messages_among_the_silence_are_no_backlog(time: Time) -> None:
    """Pub/Sub gives the others to the dead, for example."""
    ages = Ages(time)
    ages.come(100, every=1, age=60)
    assert ages.quiet.seconds == pytest.approx(100)


def test_fresh_messages_are_no_backlog(time: Time) -> None:
    ages = Ages(time)
    ages.come(100, every=0.1, age=1)
    assert ages.quiet.seconds == pytest.approx(10)


def test_of_one_message_at_a_time_each_old_one_shows_a_backlog(time: Time) -> None:
    ages = Ages(time, most_messages=1)
    ages.come(1, every=14, age=60)
    assert ages.quiet.seconds == 0
