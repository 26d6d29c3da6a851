"""Child processes that are watched, waited for, and always stopped at the end. Uses the standard library only."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

GLANCE = 0.05
STOP_SECONDS = 15
_STOPPING = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


class ProcessFailed(Exception):
    """A child process ended, or did not get ready in time. The message holds the end of its log."""


def exit_on_signals() -> None:
    """Raise SystemExit on SIGTERM and SIGHUP, so that the child processes are stopped as on Ctrl-C."""
    for number in _STOPPING[1:]:
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup ignores SIGHUP
            signal.signal(number, lambda number, frame: sys.exit(128 + number))


class Process:
    """A command in its own process group, with its output in a log file. As a context manager, stops it at the end."""

    def __init__(
        self, name: str, command: Iterable[str | Path], *, env: Mapping[str, str], cwd: Path, log: Path | None
    ) -> None:
        self.name = name
        self._log = log
        with open(log, "ab") if log else contextlib.nullcontext() as output:
            self._popen = subprocess.Popen(
                [str(part) for part in command],
                env=dict(env),
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT if log else None,
                start_new_session=True,
            )

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    @property
    def exit_code(self) -> int | None:
        return self._popen.poll()

    def wait_for(self, pattern: str, seconds: float = 60) -> re.Match[str]:
        """Wait until the log matches `pattern`. Raises ProcessFailed if the process ends or `seconds` pass before."""
        deadline = time.monotonic() + seconds
        while not (found := re.search(pattern, self._text())):
            self.check()
            if time.monotonic() > deadline:
                raise ProcessFailed(f"The {self.name} was not ready after {seconds:g} s.\n{self.tail()}")
            time.sleep(GLANCE)
        return found

    def check(self) -> None:
        """Raise ProcessFailed if this process has ended."""
        if self.exit_code is not None:
            raise ProcessFailed(f"The {self.name} ended with exit code {self.exit_code}.\n{self.tail()}")

    def finish(self, watched: Iterable[Process]) -> int:
        """Wait for this process to end and return its exit code. Raises ProcessFailed if a `watched` one ends first."""
        watched = list(watched)
        while (code := self.exit_code) is None:
            for other in watched:
                other.check()
            time.sleep(GLANCE)
        return code

    def stop(self) -> None:
        """Ask the process to stop, wait a bounded time, then kill it with all processes of its group."""
        try:
            if self.exit_code is None:
                self._popen.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._popen.wait(STOP_SECONDS)
        finally:  # also when Ctrl-C is pressed again
            if os.name == "posix":
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(self._popen.pid, signal.SIGKILL)
            elif self.exit_code is None:
                self._popen.kill()
            self._popen.wait()

    def tail(self, lines: int = 25) -> str:
        return "\n".join(f"    {line}" for line in self._text().splitlines()[-lines:])

    def _text(self) -> str:
        return self._log.read_text(encoding="utf-8", errors="replace") if self._log else ""


def start(
    running: contextlib.ExitStack,
    name: str,
    command: Iterable[str | Path],
    *,
    env: Mapping[str, str],
    cwd: Path,
    log: Path | None,
) -> Process:
    """Start a Process that is stopped at the end of `running`, even if Ctrl-C comes while it starts."""
    with _signals_held():
        return running.enter_context(Process(name, command, env=env, cwd=cwd, log=log))


@contextlib.contextmanager
def _signals_held() -> Iterator[None]:
    """Hold back Ctrl-C and other stop signals until the block ends, so that no half-started child is left behind."""
    came: list[int] = []
    before = {number: signal.signal(number, lambda number, frame: came.append(number)) for number in _STOPPING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)
        for number in came:
            signal.raise_signal(number)
