"""Push: slow start and back-off."""

from __future__ import annotations

from i3tasks.emulator.push.pacing import FIRST_WINDOW, MAX_BACKOFF, MAX_WINDOW, Pacing


def test_a_full_window_doubles_with_each_round_of_successes() -> None:
    pacing, sizes = Pacing(), []
    for _ in range(8):
        sizes.append(pacing.window)
        for _ in range(pacing.window):
            pacing.succeeded(outstanding=MAX_WINDOW)
    assert sizes[:3] == [FIRST_WINDOW, 2 * FIRST_WINDOW, 4 * FIRST_WINDOW]
    assert sizes[-1] == MAX_WINDOW


def test_a_window_that_is_not_full_does_not_grow() -> None:
    pacing = Pacing()
    for _ in range(50):
        pacing.succeeded(outstanding=1)
    assert pacing.window == FIRST_WINDOW


def test_failures_in_a_row_pause_twice_as_long_each_time() -> None:
    pacing, now, pauses = Pacing(), 0.0, []
    for _ in range(12):
        pacing.failed(started=now, now=now)
        pauses.append(pacing.paused_until - now)
        now = pacing.paused_until
    assert pauses[:4] == [0.1, 0.2, 0.4, 0.8] or [round(pause, 6) for pause in pauses[:4]] == [0.1, 0.2, 0.4, 0.8]
    assert max(pauses) == MAX_BACKOFF
    assert pacing.window == 1


def test_failures_of_the_same_moment_count_once() -> None:
    pacing = Pacing()
    for _ in range(50):
        pacing.failed(started=0.0, now=1.0)
    assert pacing.paused_until == 1.1
    assert pacing.window == FIRST_WINDOW // 2


def test_a_success_ends_the_row() -> None:
    pacing = Pacing()
    pacing.failed(started=0.0, now=0.0)
    pacing.failed(started=1.0, now=1.0)
    pacing.succeeded(outstanding=1)
    pacing.failed(started=2.0, now=2.0)
    assert pacing.paused_until == 2.1
