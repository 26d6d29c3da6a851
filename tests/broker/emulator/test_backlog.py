"""The backlog, case by case: deadlines, back-off, order, dead letters, retention and seek."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest

from i3tasks.emulator.backlog import Backlog
from i3tasks.emulator.messages import AckOutcome, Consumer, LeasedMessage, Message, Rules


class Desk:
    """A backlog, a clock and consumers, in short words."""

    def __init__(self, rules: Rules, keys: Iterable[str] = ()) -> None:
        self.now = 0.0
        self.backlog = Backlog(rules)
        self.consumer = Consumer()
        self.settled: list[int] = []
        self.exhausted: list[tuple[int, int]] = []
        for number, key in enumerate(keys, start=1):
            self.backlog.add(Message(number, self.now, b"data", key))

    def take(self, limit: int = 10, consumer: Consumer | None = None, deadline: float = 10.0) -> list[LeasedMessage]:
        deliveries = self.backlog.take(self.now, consumer or self.consumer, limit, 10**6, deadline)
        self._collect()
        return deliveries

    def ids(self, limit: int = 10, consumer: Consumer | None = None) -> list[int]:
        return [delivery.message.id for delivery in self.take(limit, consumer)]

    def ack(self, delivery: LeasedMessage) -> AckOutcome:
        outcome = self.backlog.ack(self.now, delivery.message.id, delivery.lease)
        self._collect()
        return outcome

    def modify(self, delivery: LeasedMessage, seconds: float) -> AckOutcome:
        outcome = self.backlog.modify(self.now, delivery.message.id, delivery.lease, seconds)
        self._collect()
        return outcome

    def nack(self, delivery: LeasedMessage) -> AckOutcome:
        return self.modify(delivery, 0)

    def _collect(self) -> None:
        changes = self.backlog.collect()
        self.settled += changes.settled
        self.exhausted += [(message.id, attempts) for message, attempts in changes.exhausted]


def test_an_unanswered_message_comes_back_at_its_deadline_and_not_before() -> None:
    desk = Desk(Rules(), [""])
    first = desk.take()[0]
    desk.now = 9.9
    assert desk.ids() == []
    assert desk.backlog.next_event() == 10.0
    desk.now = 10.0
    again = desk.take()[0]
    assert again.message is first.message
    assert again.lease != first.lease
    assert again.attempt == 2


def test_a_longer_deadline_holds() -> None:
    desk = Desk(Rules(), [""])
    desk.modify(desk.take()[0], 30)
    desk.now = 29.0
    assert desk.ids() == []
    desk.now = 30.0
    assert desk.ids() == [1]


def test_a_shorter_deadline_holds() -> None:
    desk = Desk(Rules(), [""])
    desk.modify(desk.take()[0], 3)
    assert desk.backlog.next_event() == 3.0
    desk.now = 3.0
    assert desk.ids() == [1]
    desk.now = 10.0
    assert desk.ids() == []


def test_a_nacked_message_comes_back_at_once_behind_the_others() -> None:
    desk = Desk(Rules(), ["", ""])
    desk.nack(desk.take(1)[0])
    assert desk.ids() == [2, 1]


def test_a_late_ack_counts_where_delivery_is_at_least_once() -> None:
    desk = Desk(Rules(), [""])
    first = desk.take()[0]
    desk.now = 10.0
    desk.take()
    assert desk.ack(first) is AckOutcome.DONE
    assert desk.settled == [1]
    assert desk.consumer.messages == 0


def test_a_late_ack_is_void_where_delivery_is_exactly_once() -> None:
    desk = Desk(Rules(exactly_once=True), [""])
    first = desk.take()[0]
    desk.now = 10.0
    assert desk.ack(first) is AckOutcome.VOID
    assert desk.modify(first, 10) is AckOutcome.VOID
    assert desk.ids() == [1]


def test_an_ack_counts_once_where_delivery_is_exactly_once() -> None:
    desk = Desk(Rules(exactly_once=True), [""])
    delivery = desk.take()[0]
    assert [desk.ack(delivery), desk.ack(delivery)] == [AckOutcome.DONE, AckOutcome.VOID]


def test_back_off_doubles_from_the_minimum_to_the_maximum() -> None:
    desk = Desk(Rules(minimum_backoff=10.0, maximum_backoff=35.0), [""])
    waits = []
    for _ in range(4):
        desk.nack(desk.take()[0])
        due = desk.backlog.next_event()
        assert due is not None
        waits.append(due - desk.now)
        desk.now = due - 0.1
        assert desk.ids() == []
        desk.now = due
    assert waits == [10.0, 20.0, 35.0, 35.0]


def test_a_passed_deadline_backs_off_too() -> None:
    desk = Desk(Rules(minimum_backoff=5.0, maximum_backoff=35.0), [""])
    desk.take()
    desk.now = 10.0
    assert desk.ids() == []
    desk.now = 15.0
    assert desk.ids() == [1]


def test_a_message_goes_to_the_dead_letters_after_its_last_attempt() -> None:
    desk = Desk(Rules(max_attempts=5), [""])
    attempts = []
    while deliveries := desk.take():
        attempts.append(deliveries[0].attempt)
        desk.nack(deliveries[0])
    assert attempts == [1, 2, 3, 4, 5]
    assert desk.exhausted == [(1, 5)]
    assert desk.settled == [1]


def test_a_dead_letter_lets_the_next_message_of_its_key_go_on() -> None:
    desk = Desk(Rules(max_attempts=1, ordered=True), ["a", "a"])
    desk.nack(desk.take(1)[0])
    assert desk.ids() == [2]


# -- order


def test_a_nack_brings_back_what_follows_in_order_acked_or_not() -> None:
    desk = Desk(Rules(ordered=True), ["a", "a", "a"])
    first, second, third = desk.take()
    assert desk.ack(second) is AckOutcome.DONE
    assert desk.settled == []
    desk.nack(first)
    assert desk.ack(third) is AckOutcome.VOID
    assert desk.ids() == [1, 2, 3]
    assert desk.consumer.messages == 3


def test_acks_settle_once_the_earlier_ones_of_the_key_are_acked() -> None:
    desk = Desk(Rules(ordered=True), ["a", "a", "a"])
    first, second, third = desk.take()
    desk.ack(third)
    desk.ack(second)
    assert desk.settled == []
    desk.ack(first)
    assert desk.settled == [1, 2, 3]


def test_acks_out_of_order_must_be_repeated_where_delivery_is_exactly_once() -> None:
    desk = Desk(Rules(ordered=True, exactly_once=True), ["a", "a"])
    first, second = desk.take()
    assert desk.ack(second) is AckOutcome.UNORDERED
    assert desk.ack(first) is AckOutcome.DONE
    assert desk.ack(second) is AckOutcome.DONE


def test_a_key_stays_with_the_consumer_that_holds_it() -> None:
    desk, other = Desk(Rules(ordered=True), ["a", "a", "b"]), Consumer()
    first = desk.take(1)
    assert desk.ids(consumer=other) == [3]
    assert desk.ids() == [2]
    desk.ack(first[0])
    desk.backlog.add(Message(4, desk.now, b"", "a"))
    assert desk.ids(consumer=other) == []
    assert desk.ids() == [4]


def test_a_key_is_free_again_once_nothing_of_it_is_outstanding() -> None:
    desk, other = Desk(Rules(ordered=True), ["a", "a"]), Consumer()
    desk.ack(desk.take(1)[0])
    assert desk.ids(consumer=other) == [2]


def test_a_key_backs_off_as_a_whole() -> None:
    desk = Desk(Rules(ordered=True, minimum_backoff=5.0, maximum_backoff=5.0), ["a", "a", "b"])
    desk.nack(desk.take(1)[0])
    assert desk.ids() == [3]
    desk.now = 5.0
    assert desk.ids() == [1, 2]


def test_push_holds_one_message_of_a_key() -> None:
    desk = Desk(Rules(ordered=True, one_per_key=True), ["a", "a", "b"])
    first, _ = desk.take()
    assert desk.ids() == []
    desk.ack(first)
    assert desk.ids() == [2]


def test_keys_are_ignored_without_ordering() -> None:
    desk = Desk(Rules(), ["a", "a"])
    first, second = desk.take()
    desk.nack(first)
    desk.ack(second)
    assert desk.settled == [2]
    assert desk.ids() == [1]


def test_messages_with_and_without_a_key_take_turns() -> None:
    desk = Desk(Rules(ordered=True), ["a", "b", "c", "", "", ""])
    assert desk.ids(4) == [1, 4, 2, 5]


# -- flow control


def test_a_consumer_gets_no_more_messages_than_it_asked_for() -> None:
    desk, consumer = Desk(Rules(), [""] * 5), Consumer(max_messages=2)
    held = desk.take(consumer=consumer)
    assert len(held) == 2
    assert desk.ids(consumer=consumer) == []
    desk.ack(held[0])
    assert desk.ids(consumer=consumer) == [3]


def test_a_consumer_gets_no_more_bytes_than_it_asked_for_but_one_message() -> None:
    desk, consumer = Desk(Rules(), [""] * 5), Consumer(max_bytes=5)
    assert desk.ids(consumer=consumer) == [1, 2]
    assert Consumer(max_bytes=1).has_room()


def test_an_expired_delivery_no_longer_counts_against_its_consumer() -> None:
    desk, consumer = Desk(Rules(), ["", ""]), Consumer(max_messages=1)
    assert desk.ids(consumer=consumer) == [1]
    desk.now = 10.0
    assert desk.ids(consumer=consumer) == [2]


# -- retention and seek


@pytest.mark.parametrize("state", ["waiting", "leased", "backing off", "acked behind another"])
@pytest.mark.parametrize("key", ["", "a"])
def test_messages_expire_in_any_state(state: str, key: str) -> None:
    desk = Desk(Rules(ordered=True, retention=100.0, minimum_backoff=300.0, maximum_backoff=300.0), [key, key])
    actions: dict[str, Callable[[list[LeasedMessage]], object]] = {
        "waiting": lambda _: None,
        "leased": lambda held: [desk.modify(delivery, 500) for delivery in held],
        "backing off": lambda held: [desk.nack(delivery) for delivery in reversed(held)],
        "acked behind another": lambda held: [desk.modify(held[0], 500), desk.ack(held[1])],
    }
    actions[state]([] if state == "waiting" else desk.take())
    desk.now = 101.0
    desk.backlog.prune(desk.now)
    desk._collect()
    assert sorted(desk.settled) == [1, 2]
    assert desk.consumer.messages == 0
    desk.backlog.add(Message(3, desk.now, b"", key))
    assert desk.ids() == [3]


def test_a_message_acked_behind_an_expired_one_is_settled() -> None:
    desk = Desk(Rules(ordered=True, retention=100.0), ["a"])
    desk.now = 50.0
    desk.backlog.add(Message(2, desk.now, b"", "a"))
    first, second = desk.take()
    desk.modify(first, 500)
    desk.ack(second)
    desk.now = 120.0
    desk.backlog.prune(desk.now)
    desk._collect()
    assert sorted(desk.settled) == [1, 2]


def test_a_key_goes_on_when_the_message_that_held_it_up_expires() -> None:
    desk = Desk(Rules(ordered=True, retention=100.0, minimum_backoff=300.0, maximum_backoff=300.0), ["a"])
    desk.backlog.add(Message(2, 50.0, b"", "a"))
    desk.now = 99.0
    desk.nack(desk.take(1)[0])
    assert desk.ids() == []
    desk.now = 101.0
    desk.backlog.prune(desk.now)
    assert desk.ids() == [2]


def _aged(rules: Rules) -> Desk:
    """Messages 1, 2, 3, published at 0, 10 and 20."""
    desk = Desk(rules)
    for number, at in ((1, 0.0), (2, 10.0), (3, 20.0)):
        desk.backlog.add(Message(number, at, b"", ""))
    desk.now = 30.0
    return desk


def test_seeking_forward_acks_what_was_published_before() -> None:
    desk = _aged(Rules())
    desk.take(1)
    desk.backlog.seek(desk.now, 20.0)
    desk._collect()
    assert sorted(desk.settled) == [1, 2]
    assert desk.ids() == [3]


def test_seeking_back_replays_what_was_acked_and_is_retained() -> None:
    desk = _aged(Rules(retain_acked=True))
    for delivery in desk.take():
        desk.ack(delivery)
    assert desk.settled == []
    desk.backlog.seek(desk.now, 10.0)
    changes = desk.backlog.collect()
    assert sorted(changes.revived) == [2, 3]
    assert desk.ids() == [2, 3]
    desk.backlog.seek(desk.now, 100.0)
    assert desk.ids() == []
    desk.backlog.seek(desk.now, 0.0)
    assert desk.ids() == [1, 2, 3]


def test_seeking_back_replays_what_the_topic_retains() -> None:
    desk = _aged(Rules())
    older = Message(4, 5.0, b"", "")
    desk.backlog.seek(desk.now, 5.0, [older, Message(5, 4.0, b"", "")])
    assert sorted(desk.ids()) == [2, 3, 4]


def test_seeking_ends_the_deliveries_that_are_outstanding() -> None:
    desk = _aged(Rules(exactly_once=True))
    held = desk.take()
    desk.backlog.seek(desk.now, 0.0)
    assert [desk.ack(delivery) for delivery in held] == [AckOutcome.VOID] * 3
    assert desk.consumer.messages == 0
    assert desk.ids() == [1, 2, 3]


def test_no_longer_retaining_acked_messages_forgets_them() -> None:
    desk = _aged(Rules(retain_acked=True))
    for delivery in desk.take():
        desk.ack(delivery)
    desk.backlog.change_rules(Rules())
    desk._collect()
    assert sorted(desk.settled) == [1, 2, 3]


def test_becoming_a_push_subscription_keeps_everything() -> None:
    desk = Desk(Rules(ordered=True), ["a", "a"])
    desk.nack(desk.take(1)[0])
    desk.take()
    desk.backlog.change_rules(Rules(ordered=True, one_per_key=True))
    held = desk.take()
    assert [(delivery.message.id, delivery.attempt) for delivery in held] == [(1, 2)]
