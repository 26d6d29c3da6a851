"""The inbox and the hand: pure."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from i3tasks.broker.deliveries import Inbox, Incoming, Outstanding


class Message:
    def __init__(self) -> None:
        self.answers: list[str] = []

    def ack(self) -> None:
        self.answers.append("ack")

    def nack(self) -> None:
        self.answers.append("nack")


def test_only_the_first_answer_counts() -> None:
    message, hand = Message(), Outstanding()
    incoming = Incoming(None, message, hand)  # type: ignore[arg-type]

    with ThreadPoolExecutor(8) as threads:
        for _ in range(50):
            threads.submit(incoming.ack)
            threads.submit(incoming.nack)

    assert len(message.answers) == 1
    assert len(hand) == 0


def test_the_hand_is_empty_only_after_the_last_answer_was_sent() -> None:
    message, hand, emptied = Message(), Outstanding(), []
    incoming = Incoming(None, message, hand)  # type: ignore[arg-type]
    hand.when_empty(lambda: emptied.append(list(message.answers)))
    assert emptied == []

    incoming.nack()
    assert emptied == [["nack"]]

    hand.when_empty(lambda: emptied.append([]))
    assert emptied == [["nack"], []]


def test_the_loop_is_woken_once_for_many_messages() -> None:
    wakes: list[int] = []
    inbox = Inbox(lambda: wakes.append(1))

    for n in range(100):
        inbox.put(n)
    assert (inbox.empty(), len(wakes)) == (list(range(100)), 1)

    inbox.put(100)
    assert (inbox.empty(), len(wakes)) == ([100], 2)
