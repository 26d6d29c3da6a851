"""Which signals a process of ours handles."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

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


ENDS_ON_SIGTERM = """
import signal, threading, time
from i3tasks.threads.forking import signals_heard
told = threading.Event()
with signals_heard(lambda *_: told.set(), [signal.SIGTERM], with_echoes=True):
    print("ready", flush=True)
    told.wait()
print("ended", flush=True)
time.sleep({lasts})
"""


@pytest.mark.parametrize(("lasts", "exit_code"), [(0.3, 0), (30, -signal.SIGTERM)])
def test_signals_within_a_second_are_one_also_when_the_first_has_been_heeded(lasts: float, exit_code: int) -> None:
    process = subprocess.Popen([sys.executable, "-c", ENDS_ON_SIGTERM.format(lasts=lasts)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    while process.poll() is None:
        process.send_signal(signal.SIGTERM)
        time.sleep(0.01)
    assert process.stdout.read() == b"ended\n"
    process.stdout.close()
    assert process.returncode == exit_code
