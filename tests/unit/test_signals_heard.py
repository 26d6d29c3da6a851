"""Which signals a process of ours handles."""

from __future__ import annotations

import signal

import pytest

from i3tasks.threads.forking import signals_heard

BOTH = (signal.SIGTERM, signal.SIGHUP)


@pytest.mark.parametrize(("hangup", "heard"), [(signal.SIG_IGN, [signal.SIGTERM]), (signal.SIG_DFL, [*BOTH])])
def test_a_sighup_that_nohup_has_ignored_stays_ignored(hangup: signal.Handlers, heard: list[int]) -> None:
    came: list[int] = []
    before = {number: signal.getsignal(number) for number in BOTH}
    signal.signal(signal.SIGHUP, hangup)
    try:
        with signals_heard(lambda number, frame: came.append(number), BOTH):
            for number in BOTH:
                signal.raise_signal(number)
        assert came == heard
        assert signal.getsignal(signal.SIGHUP) is hangup
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
