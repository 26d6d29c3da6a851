"""Any interleaving of publish, take, ack, nack, deadline changes, time and restarts keeps a subscription's promises."""

from __future__ import annotations

from collections import defaultdict

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from i3tasks.emulator.backlog import Backlog
from i3tasks.emulator.messages import AckOutcome, Consumer, LeasedMessage, Message, Rules
from tests.support.exploring import examples

DEADLINE = 10.0


class Disk:
    """What a restart brings back: the changes that the backlog has reported, and nothing else."""

    def __init__(self) -> None:
        self.messages: dict[int, Message] = {}
        self.failures: dict[int, int] = {}
        self.exhausted: list[int] = []

    def write(self, backlog: Backlog) -> None:
        changes = backlog.collect()
        self.failures |= changes.failures
        for message_id in changes.settled:
            del self.messages[message_id]
        self.exhausted += [message.id for message, _ in changes.exhausted]

    def restart(self, terms: Rules, first_lease: int) -> Backlog:
        backlog = Backlog(terms, first_lease=first_lease)
        for message_id in sorted(self.messages):
            backlog.add(self.messages[message_id], failures=self.failures.get(message_id, 0))
        return backlog


class Subscription(RuleBasedStateMachine):
    """Runs the backlog next to what its users know: what they published, got, and had confirmed."""

    terms = Rules()

    def __init__(self) -> None:
        super().__init__()
        self.now = 1_000.0
        self.disk = Disk()
        self.backlog = Backlog(self.terms)
        self.leases_given = 0
        self.published: dict[int, Message] = {}
        self.answered: set[int] = set()  # an ack was accepted
        self.acked: set[int] = set()  # and nothing may bring the message back: in order, an earlier message may
        self.consumers = [Consumer(max_messages=3), Consumer(max_bytes=40), Consumer()]
        self.held: dict[int, tuple[LeasedMessage, Consumer, float]] = {}  # by message: the latest delivery not given up
        self.stale: list[LeasedMessage] = []
        self.delivered: defaultdict[str, list[int]] = defaultdict(list)  # by ordering key

    # -- what users do

    @rule(keys=st.lists(st.sampled_from(["", "a", "a", "b"]), min_size=1, max_size=5), size=st.integers(1, 12))
    def publish(self, keys: list[str], size: int) -> None:
        for key in keys:
            message = Message(len(self.published) + 1, self.now, b"x" * size, key)
            self.published[message.id] = self.disk.messages[message.id] = message
            self.backlog.add(message)

    @rule(which=st.integers(0, 2), limit=st.sampled_from([1, 2, 10]))
    def take(self, which: int, limit: int) -> None:
        consumer = self.consumers[which]
        deliveries = self.backlog.take(self.now, consumer, limit, 60, DEADLINE)
        assert len(deliveries) <= limit
        for delivery in deliveries:
            self.check_delivery(delivery, consumer)
        self.disk.write(self.backlog)

    def check_delivery(self, delivery: LeasedMessage, consumer: Consumer) -> None:
        message = delivery.message
        assert message.id in self.disk.messages, "what is settled is not delivered"
        assert message.id not in self.acked, "what was acked is not delivered again"
        earlier = self.held.get(message.id)
        if earlier is not None:
            self.check_redelivery(earlier, message)
            self.stale.append(earlier[0])
        self.held[message.id] = (delivery, consumer, self.now + DEADLINE)
        if self.is_ordered(message):
            self.check_order(message, consumer)

    def check_redelivery(self, earlier: tuple[LeasedMessage, Consumer, float], message: Message) -> None:
        taken_back = self.is_ordered(message)  # an earlier message of its key failed
        assert earlier[2] <= self.now or taken_back, "a lease is honoured until its deadline"

    def check_order(self, message: Message, consumer: Consumer) -> None:
        """The next one of a key is at most one further than the last one, leaving out those that are settled."""
        past = self.delivered[message.ordering_key]
        alive = [key for key, other in self.disk.messages.items() if other.ordering_key == message.ordering_key]
        reachable = [key for key in alive if key not in past]
        if message.id not in past:
            assert message.id == min(reachable), "no message of a key overtakes another"
        skipped = [key for key in alive if past and past[-1] < key < message.id]
        assert not skipped, "a redelivered message is followed by all that follow it"
        for other, holder, deadline in self.held.values():
            same_key = other.message.ordering_key == message.ordering_key and other.message is not message
            if same_key and deadline > self.now and other.message.id in set(alive) & set(past):
                assert not self.terms.one_per_key, "nothing of a key follows an outstanding one"
                assert other.message.id > message.id or holder is consumer, "a key is at one consumer at a time"
        past.append(message.id)

    def is_ordered(self, message: Message) -> bool:
        return self.terms.ordered and message.ordering_key != ""

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def ack(self, data: st.DataObject) -> None:
        message_id = data.draw(st.sampled_from(sorted(self.held)))
        delivery = self.held[message_id][0]
        outcome = self.backlog.ack(self.now, message_id, delivery.lease)
        self.disk.write(self.backlog)
        if outcome is AckOutcome.DONE:
            del self.held[message_id]
            self.answered.add(message_id)
            if not self.is_ordered(delivery.message) or self.terms.exactly_once:
                assert message_id not in self.disk.messages, "an ack is written down"
                self.acked.add(message_id)

    @precondition(lambda self: self.held)
    @rule(data=st.data(), seconds=st.sampled_from([0, 0, 1, 5, 30]))
    def modify(self, data: st.DataObject, seconds: int) -> None:
        message_id = data.draw(st.sampled_from(sorted(self.held)))
        delivery, consumer, _ = self.held[message_id]
        if self.backlog.modify(self.now, message_id, delivery.lease, seconds) is AckOutcome.DONE:
            self.held[message_id] = (delivery, consumer, self.now + seconds)
        self.disk.write(self.backlog)

    @precondition(lambda self: self.stale)
    @rule(data=st.data())
    def answer_late(self, data: st.DataObject) -> None:
        delivery = data.draw(st.sampled_from(self.stale))
        assert self.backlog.modify(self.now, delivery.message.id, delivery.lease, 30) is AckOutcome.VOID
        outcome = self.backlog.ack(self.now, delivery.message.id, delivery.lease)
        if self.terms.exactly_once:
            assert outcome is AckOutcome.VOID, "a lease that is over confirms nothing"
        self.disk.write(self.backlog)
        if outcome is AckOutcome.DONE:
            self.answered.add(delivery.message.id)
            self.acked.add(delivery.message.id)
            self.held.pop(delivery.message.id, None)

    @rule(seconds=st.sampled_from([0.5, 4.0, 10.0, 25.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.backlog.advance(self.now)
        self.disk.write(self.backlog)

    @rule()
    def prune(self) -> None:
        self.backlog.prune(self.now)
        self.disk.write(self.backlog)
        assert all(message.published_at >= self.now - self.terms.retention for message in self.disk.messages.values())

    @rule()
    def restart(self) -> None:
        self.leases_given += 1_000_000
        self.backlog = self.disk.restart(self.terms, self.leases_given)
        self.consumers = [Consumer(max_messages=3), Consumer(max_bytes=40), Consumer()]
        self.stale += [delivery for delivery, _, _ in self.held.values()]
        self.held.clear()
        self.delivered.clear()

    # -- what always holds

    @invariant()
    def nothing_is_lost(self) -> None:
        gone = set(self.published) - set(self.disk.messages)
        expired = {key for key in gone if self.published[key].published_at < self.now - self.terms.retention}
        assert gone <= self.answered | set(self.disk.exhausted) | expired, "what was not acked stays"
        assert not self.acked & set(self.disk.messages), "what was acked for good is gone for good"
        assert len(self.backlog) == len(self.disk.messages)

    @invariant()
    def limits_hold(self) -> None:
        assert self.consumers[0].messages <= 3
        assert self.consumers[1].bytes < 40 + 12
        assert all(consumer.messages >= 0 and consumer.bytes >= 0 for consumer in self.consumers)

    @invariant()
    def a_timer_is_due_while_something_is_outstanding(self) -> None:
        outstanding = sum(consumer.messages for consumer in self.consumers)
        if outstanding:
            due = self.backlog.next_event()
            assert due is not None
            assert due <= self.now + 600

    def teardown(self) -> None:
        """Everything that is left can still be had."""
        left, consumer = set(self.disk.messages), Consumer()
        for _ in range(4 * len(left) + 4):
            self.now = max(self.now, self.backlog.next_event() or self.now) + 0.001
            for delivery in self.backlog.take(self.now, consumer, 1_000, 10**9, 600.0):
                self.backlog.ack(self.now, delivery.message.id, delivery.lease)
            self.disk.write(self.backlog)
        assert not self.disk.messages
        assert len(self.backlog) == 0
        assert left <= set(self.published)
        assert consumer.messages == 0
        assert consumer.bytes == 0


CASES = {
    "plain": Rules(),
    "backing off": Rules(minimum_backoff=3.0, maximum_backoff=20.0),
    "exactly once": Rules(exactly_once=True),
    "short-lived": Rules(retention=30.0, minimum_backoff=10.0, maximum_backoff=20.0),
    "ordered": Rules(ordered=True),
    "ordered, short-lived": Rules(ordered=True, retention=30.0, minimum_backoff=10.0, maximum_backoff=20.0),
    "ordered, one at a time, backing off": Rules(
        ordered=True, one_per_key=True, minimum_backoff=2.0, maximum_backoff=9.0
    ),
    "ordered, exactly once": Rules(ordered=True, exactly_once=True, minimum_backoff=3.0, maximum_backoff=9.0),
    "dead letters": Rules(max_attempts=2),
    "ordered, dead letters": Rules(ordered=True, max_attempts=2, minimum_backoff=1.0, maximum_backoff=4.0),
}


@pytest.mark.hypothesis
@pytest.mark.parametrize("case", CASES)
def test_any_interleaving(case: str) -> None:
    machine = type("Case", (Subscription,), {"terms": CASES[case]}).TestCase
    machine.settings = settings(
        max_examples=examples(70), stateful_step_count=50, deadline=None, suppress_health_check=list(HealthCheck)
    )
    machine().runTest()
