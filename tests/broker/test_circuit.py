"""The circuit: one probe a second, one log line an outage."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from i3tasks.broker.circuit import REFUSED_SECONDS, Circuit, Refusals
from i3tasks.broker.errors import BrokerMissing, BrokerUnavailable
from i3tasks.core.clock import SYSTEM_CLOCK

if TYPE_CHECKING:
    from tests.broker.conftest import Events


class Time:
    def __init__(self) -> None:
        self.now = 100.0


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def circuit(time: Time) -> Circuit:
    return Circuit("test", replace(SYSTEM_CLOCK, monotonic=lambda: time.now, random=lambda: 0.5))


def test_it_lets_everything_through_until_a_failure(circuit: Circuit) -> None:
    circuit.check()

    assert circuit.is_closed


def test_after_a_failure_one_probe_a_second(circuit: Circuit, time: Time) -> None:
    circuit.failed(BrokerUnavailable("gone"))
    assert not circuit.is_closed
    with pytest.raises(BrokerUnavailable, match="gone"):
        circuit.check()

    time.now += 1.01
    circuit.check()
    circuit.failed(BrokerUnavailable("still gone"))

    with pytest.raises(BrokerUnavailable, match="still gone"):
        circuit.check()


def test_an_answer_closes_it(circuit: Circuit) -> None:
    circuit.failed(BrokerUnavailable("gone"))
    circuit.answered()

    circuit.check()
    assert circuit.is_closed


def test_an_outage_is_logged_once_and_so_is_its_end(circuit: Circuit, events: Events) -> None:
    for _ in range(3):
        circuit.failed(BrokerUnavailable("gone"), topic="t")
    circuit.answered()
    circuit.answered()

    assert events.named("broker_unavailable") == [{"what": "test", "error": "gone", "topic": "t"}]
    assert events.named("broker_recovered") == [{"what": "test"}]


def test_a_topic_refuses_until_it_takes_a_message_or_was_left_alone_for_long(time: Time) -> None:
    refusals = Refusals(replace(SYSTEM_CLOCK, monotonic=lambda: time.now))
    refusals.note("mail", BrokerMissing("Pub/Sub has no mail."))
    assert [refusals.includes(topic) for topic in ("mail", "other")] == [True, False]
    assert refusals.trouble == "Pub/Sub has no mail."
    refusals.note("mail", None)
    assert (refusals.includes("mail"), refusals.trouble) == (False, None)
    refusals.note("mail", BrokerMissing())
    time.now += REFUSED_SECONDS + 1
    assert (refusals.includes("mail"), refusals.trouble) == (False, None)
