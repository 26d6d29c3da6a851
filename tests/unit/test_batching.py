"""The batching thread: in order, in growing batches, never blocking, gone when idle, new after a fork."""

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from i3tasks.threads.batching import BatchThread

SOON = 10.0  # a deadline for what should happen at once


class Handler:
    """Notes the batches; while `closed`, the batch in hand waits."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.entered = threading.Event()
        self.open = threading.Event()
        self.open.set()
        self.threads: set[threading.Thread] = set()

    def __call__(self, batch: list[int]) -> None:
        self.threads.add(threading.current_thread())
        self.entered.set()
        assert self.open.wait(SOON)
        self.batches.append(batch)
        if 13 in batch:
            raise RuntimeError("unlucky")

    @property
    def items(self) -> list[int]:
        return [item for batch in self.batches for item in batch]

    @contextmanager
    def busy(self, thread: BatchThread[int]) -> Iterator[None]:
        """While the block runs, item 0 is being handled."""
        self.open.clear()
        self.entered.clear()
        assert thread.put(0)
        assert self.entered.wait(SOON)
        yield
        self.open.set()


@pytest.fixture
def handler() -> Handler:
    return Handler()


def make(
    handler: Handler, *, idle: float = 5, on_end: Callable[[], None] = lambda: None, **limits: int
) -> BatchThread[int]:
    sizes = {"max_batch": 400, "max_queued": 10_000, **limits}
    return BatchThread("test", handler, idle_seconds=lambda: idle, on_end=on_end, **sizes)


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SOON
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_no_thread_before_the_first_item(handler: Handler) -> None:
    before = threading.active_count()
    thread = make(handler)
    assert threading.active_count() == before
    assert thread.flush(0)


def test_items_are_handled_once_and_in_order(handler: Handler) -> None:
    thread = make(handler)
    for item in range(1000):
        assert thread.put(item)
    assert thread.flush(SOON)
    assert handler.items == [*range(1000)]


def test_what_comes_while_a_batch_is_handled_makes_the_next_one(handler: Handler) -> None:
    thread = make(handler, max_batch=400)
    with handler.busy(thread):
        for item in range(1, 1001):
            thread.put(item)
    assert thread.flush(SOON)
    assert [len(batch) for batch in handler.batches] == [1, 400, 400, 200]


def test_a_lone_item_does_not_linger(handler: Handler) -> None:
    make(handler).put(1)
    until(lambda: handler.batches == [[1]])


def test_a_full_queue_refuses_without_blocking(handler: Handler) -> None:
    thread = make(handler, max_queued=3)
    with handler.busy(thread):
        assert [thread.put(item) for item in range(1, 6)] == [True, True, True, False, False]
        assert not thread.put(9, delay=60), "a delayed item takes its place too"
    assert thread.flush(SOON)
    assert handler.items == [0, 1, 2, 3]
    assert thread.put(4)


def test_many_items_are_put_together_as_far_as_there_is_room(handler: Handler) -> None:
    thread = make(handler, max_queued=3)
    assert thread.put_all([]) == 0
    with handler.busy(thread):
        assert [thread.put_all([1, 2]), thread.put_all([3, 4]), thread.put_all([5])] == [2, 1, 0]
    assert thread.flush(SOON)
    assert handler.batches == [[0], [1, 2, 3]]


def test_many_items_may_be_delayed_together(handler: Handler) -> None:
    thread = make(handler, max_queued=3)
    assert [thread.put_all([1, 2], delay=0.05), thread.put_all([3, 4], delay=0.05)] == [2, 1]
    assert handler.items == []
    until(lambda: handler.items == [1, 2, 3])


def test_a_delayed_item_waits_and_does_not_hold_up_others(handler: Handler) -> None:
    thread = make(handler)
    thread.put(2, delay=0.05)
    thread.put(1)
    assert thread.flush(SOON)
    assert handler.items == [1]
    until(lambda: handler.items == [1, 2])


def test_delayed_items_come_by_their_time(handler: Handler) -> None:
    thread = make(handler)
    for item in (3, 1, 2):
        thread.put(item, delay=item * 0.02)
    until(lambda: len(handler.items) == 3)
    assert handler.items == [1, 2, 3]


def test_a_discarded_item_is_never_handled(handler: Handler) -> None:
    thread = make(handler, idle=0)
    thread.put(500, delay=0.05)
    thread.discard(500)
    thread.put(2, delay=0.1)
    until(lambda: handler.items == [2])


def test_flush_is_bounded(handler: Handler) -> None:
    thread = make(handler)
    with handler.busy(thread):
        thread.put(1)
        assert not thread.flush(0.01)
    assert thread.flush(SOON)
    assert handler.items == [0, 1]


def test_an_error_in_handle_costs_its_batch_only(handler: Handler, caplog: pytest.LogCaptureFixture) -> None:
    thread = make(handler)
    thread.put(13)
    assert thread.flush(SOON)
    thread.put(14)
    assert thread.flush(SOON)
    assert handler.items == [13, 14]
    assert len(handler.threads) == 1
    assert "internal_error" in caplog.text
    assert "unlucky" in caplog.text


def test_idle_it_ends_and_the_next_item_starts_it_again(handler: Handler) -> None:
    ended: list[threading.Thread] = []
    thread = make(handler, idle=0, on_end=lambda: ended.append(threading.current_thread()))
    for round_number in range(3):
        thread.put(round_number)
        assert thread.flush(SOON)
        thread.join(SOON)
        assert len(ended) == round_number + 1
        assert not ended[-1].is_alive()
    assert set(ended) == handler.threads
    assert handler.items == [0, 1, 2]


def test_a_waiting_item_keeps_it_from_ending(handler: Handler) -> None:
    thread = make(handler, idle=0)
    thread.put(1, delay=0.05)
    until(lambda: handler.items == [1])
    assert len(handler.threads) == 1


def test_an_item_for_later_wakes_it_only_if_it_would_sleep_too_long(handler: Handler) -> None:
    """Each wake-up of a thread takes the interpreter away from the event loop, and heartbeats come and go."""
    thread = BatchThread("test", handler, max_batch=10, max_queued=100, idle_seconds=lambda: 60.0)
    assert thread.put(1)
    wakes: list[str] = []
    with thread._changed:
        assert thread._changed.wait_for(lambda: thread._wakes_at > 0, SOON)  # it sleeps
        notify_all = thread._changed.notify_all
        thread._changed.notify_all = lambda: (wakes.append("woken"), notify_all())[1]  # type: ignore[method-assign]
    assert thread.put(2, delay=100)
    thread.discard(2)
    assert not wakes
    assert thread.put(3, delay=50)
    assert wakes
    del thread._changed.notify_all
    thread.hurry(lambda item: True)
    assert thread.flush(SOON)
    assert handler.items == [1, 3]


def test_nothing_is_lost_between_ending_and_starting(handler: Handler) -> None:
    """Four threads put while the batching thread, idle at once, ends after each batch."""
    thread = make(handler, idle=0)

    def put(first: int) -> None:
        for item in range(first, first + 250):
            assert thread.put(item)
            thread.flush(SOON)

    putters = [threading.Thread(target=put, args=(100 + number * 250,)) for number in range(4)]
    for putter in putters:
        putter.start()
    for putter in putters:
        putter.join(SOON)
    assert sorted(handler.items) == [*range(100, 1100)]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_died_is_replaced(handler: Handler) -> None:
    """SystemExit ends a thread without a word."""

    def die_once(batch: list[int]) -> None:
        if batch == [666]:
            raise SystemExit
        handler(batch)

    thread = BatchThread[int]("test", die_once, max_batch=1, max_queued=10, idle_seconds=lambda: 5)
    thread.put(666)
    thread.join(SOON)
    thread.put(1)
    until(lambda: handler.items == [1])
    assert thread.flush(SOON)


def test_without_a_thread_to_be_had_an_item_is_refused(handler: Handler, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_thread(self: threading.Thread) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    thread = make(handler)
    monkeypatch.setattr(threading.Thread, "start", no_thread)
    assert not thread.put(1)
    monkeypatch.undo()
    assert thread.put(2)
    assert thread.flush(SOON)
    assert handler.items == [2]


def test_delayed_items_that_are_meant_are_hurried_and_the_others_wait(handler: Handler) -> None:
    thread = make(handler)
    for item, delay in ((1, 90), (2, 60), (3, 30), (4, 120)):
        assert thread.put(item, delay=delay)
    thread.hurry(lambda item: item != 2)
    assert thread.flush(SOON)
    assert handler.batches == [[3, 1, 4]]
    thread.hurry(lambda item: True)
    assert thread.flush(SOON)
    assert handler.items == [3, 1, 4, 2]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("locked", [False, True], ids=["lock free", "lock held"])
def test_a_forked_child_starts_anew_whatever_the_parent_was_doing(handler: Handler, locked: bool) -> None:
    thread = make(handler)
    with handler.busy(thread):
        thread.put(1)
        holder = threading.Thread(target=hold, args=(thread, handler)) if locked else None
        if holder:
            holder.start()
            until(lambda: thread._changed._lock.locked() if hasattr(thread._changed._lock, "locked") else True)  # type: ignore[attr-defined]
        child = os.fork()
        if child == 0:
            handler.batches.clear()
            handler.open = threading.Event()
            handler.open.set()
            works = thread.put(7) and thread.flush(SOON) and handler.items == [7]
            sys.stdout.flush()
            os._exit(0 if works else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    if holder:
        holder.join(SOON)
    assert thread.flush(SOON)
    assert handler.items == [0, 1], "the parent goes on"


def hold(thread: BatchThread[int], handler: Handler) -> None:
    with thread._changed:
        handler.open.wait(SOON)
