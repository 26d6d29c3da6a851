"""Which tries may start: slots, threads, and what is claimed ahead of a free thread."""

from __future__ import annotations

import pytest

from i3tasks.engine import concurrency
from i3tasks.engine.concurrency import AHEAD_SECONDS, Admission, Room


class Try:
    number = 0

    def __init__(self, name: str, log: list[str], *, in_thread: bool = False, is_in_process: bool = False) -> None:
        self.name = name
        self.log = log
        self.in_thread = in_thread or is_in_process
        self.is_in_process = is_in_process
        self.is_wanted = True

    def begin(self) -> bool:
        if self.is_wanted:
            self.log.append(self.name)
        return self.is_wanted

    def refuse(self) -> None:
        self.log.append(f"no {self.name}")


@pytest.fixture
def log() -> list[str]:
    return []


def test_tries_start_in_their_order_as_slots_get_free(log: list[str]) -> None:
    admits = Admission(slots=2, threads=2)
    for name in "abcd":
        admits.ask(Try(name, log, in_thread=name in "bc"))
    assert log == ["a", "b"]
    admits.leave()
    admits.leave()
    assert log == ["a", "b", "c", "d"]


def test_who_waits_for_a_thread_lets_coroutines_pass(log: list[str]) -> None:
    admits = Admission(slots=3, threads=1)
    for name in ("s1", "s2", "c1", "c2"):
        admits.ask(Try(name, log, in_thread=name[0] == "s"))
    assert log == ["s1", "c1", "c2"]
    admits.free_thread(10)
    assert log == ["s1", "c1", "c2"], "its body has ended and its settlement still has the slot"
    assert admits.room == Room(0, 1)
    admits.leave()
    assert log[-1] == "s2"


@pytest.mark.parametrize(("seconds", "started"), [(AHEAD_SECONDS / 5, 2 + 10), (100 * AHEAD_SECONDS, 2)])
def test_short_bodies_are_claimed_ahead_of_a_free_thread_and_long_ones_are_not(
    log: list[str], monkeypatch: pytest.MonkeyPatch, seconds: float, started: int
) -> None:
    monkeypatch.setattr(concurrency.time, "monotonic", lambda: 100.0)
    admits = Admission(slots=1000, threads=2)
    for _ in range(200):  # until the average is theirs
        admits.ask(Try("x", log, in_thread=True))
        admits.free_thread(seconds * 0.99)
    log.clear()
    for number in range(50):
        admits.ask(Try(str(number), log, in_thread=True))
    assert len(log) == started


def after_short_bodies(log: list[str], threads: int) -> Admission:
    """An admission that has seen so many short bodies that it claims ahead."""
    admits = Admission(slots=1000, threads=threads)
    for _ in range(100):
        admits.ask(Try("short", log, in_thread=True))
        admits.free_thread(0.0001)
    log.clear()
    return admits


def test_nothing_is_claimed_ahead_once_the_threads_stand_still(log: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(concurrency.time, "monotonic", lambda: now)
    admits = after_short_bodies(log, threads=1)
    admits.ask(Try("stuck", log, in_thread=True))
    admits.ask(Try("ahead", log, in_thread=True))
    now += 2 * AHEAD_SECONDS
    admits.ask(Try("late", log, in_thread=True))
    assert log == ["stuck", "ahead"]


def test_a_child_process_is_never_claimed_ahead(log: list[str]) -> None:
    admits = after_short_bodies(log, threads=1)
    admits.ask(Try("thread", log, in_thread=True))
    admits.ask(Try("process", log, is_in_process=True))
    assert log == ["thread"]
    admits.free_thread(0.0001)
    assert log == ["thread", "process"]


def test_nothing_is_claimed_ahead_while_a_thread_stands_for_a_child_process(log: list[str]) -> None:
    """Its thread is idle, and would begin what is claimed ahead: one body more than there are threads."""
    admits = after_short_bodies(log, threads=2)
    admits.ask(Try("process", log, is_in_process=True))
    admits.ask(Try("thread", log, in_thread=True))
    admits.ask(Try("ahead", log, in_thread=True))
    assert log == ["process", "thread"]
    admits.free_thread(0.0001)
    admits.ask_thread(Try("claimed", log, in_thread=True))
    assert log == ["process", "thread", "ahead"]
    admits.free_thread(0.0001, of_process=True)
    admits.ask(Try("later", log, in_thread=True))
    assert log == ["process", "thread", "ahead", "claimed", "later"], "and it goes on as before"


def test_who_has_gone_takes_nothing(log: list[str]) -> None:
    admits = Admission(slots=1, threads=1)
    admits.ask(Try("first", log))
    gone = Try("gone", log)
    admits.ask(gone)
    admits.ask(Try("next", log))
    gone.is_wanted = False
    admits.leave()
    assert log == ["first", "next"]


def test_a_closed_admission_refuses_who_waits_and_who_comes(log: list[str]) -> None:
    admits = Admission(slots=1, threads=1)
    for name in ("runs", "waits"):
        admits.ask(Try(name, log))
    admits.close()
    admits.ask(Try("comes", log, in_thread=True))
    admits.leave()
    assert log == ["runs", "no waits", "no comes"]
    assert admits.room == Room(0, 0)


@pytest.mark.parametrize("is_in_process", [False, True])
def test_who_has_a_slot_gets_the_next_thread_and_takes_no_other_slot(log: list[str], is_in_process: bool) -> None:
    admits = Admission(slots=4, threads=1)
    for name in ("s1", "s2", "c1"):
        admits.ask(Try(name, log, in_thread=name[0] == "s"))
    admits.ask_thread(Try("claimed", log, in_thread=True, is_in_process=is_in_process))
    assert (log, admits.room) == (["s1", "c1"], Room(2, 0))
    admits.free_thread()
    assert (log, admits.room) == (["s1", "c1", "claimed"], Room(2, 0))
    admits.free_thread()
    assert (log[-1], admits.room) == ("s2", Room(1, 0))


def test_who_has_a_slot_and_was_stopped_takes_no_thread(log: list[str]) -> None:
    admits = Admission(slots=2, threads=1)
    admits.ask(Try("runs", log, in_thread=True))
    gone = Try("gone", log)
    gone.is_wanted = False
    admits.ask_thread(gone)
    admits.free_thread()
    assert (log, admits.room) == (["runs"], Room(1, 1))


def test_a_closed_admission_refuses_who_has_a_slot_and_waits_for_a_thread(log: list[str]) -> None:
    admits = Admission(slots=2, threads=1)
    admits.ask(Try("runs", log, in_thread=True))
    admits.ask_thread(Try("waits", log))
    admits.close()
    admits.ask_thread(Try("comes", log))
    assert log == ["runs", "no waits", "no comes"]
