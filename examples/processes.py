"""Child processes that are waited for, watched, and never left behind. Standard library only."""

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
    """A child ended, or never got ready; the text holds the end of its log."""


def exit_on_signals() -> None:
    """Unwind on SIGTERM as on Ctrl-C, so that what was started is stopped."""
    for number in _STOPPING[1:]:
        if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup wants it
            signal.signal(number, lambda number, frame: sys.exit(128 + number))


class Process:
    """A command in a process group of its own, its output in a log file. A context manager: stopped at the end."""

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
        """The place in the log that says this process is ready. Raises ProcessFailed when it won't get there."""
        deadline = time.monotonic() + seconds
        while not (found := re.search(pattern, self._text())):
            self.check()
            if time.monotonic() > deadline:
                raise ProcessFailed(f"The {self.name} was not ready after {seconds:g} s.\n{self.tail()}")
            time.sleep(GLANCE)
        return found

    def check(self) -> None:
        """Raises ProcessFailed when this process has ended."""
        if self.exit_code is not None:
            raise ProcessFailed(f"The {self.name} ended with exit code {self.exit_code}.\n{self.tail()}")

    def finish(self, watched: Iterable[Process]) -> int:
        """Wait for the end of this process, as long as the `watched` ones live; its exit code."""
        watched = list(watched)
        while (code := self.exit_code) is None:
            for other in watched:
                other.check()
            time.sleep(GLANCE)
        return code

    def stop(self) -> None:
        """Ask it to stop, wait a bounded time, then end it and whatever it started."""
        try:
            if self.exit_code is None:
                self._popen.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._popen.wait(STOP_SECONDS)
        finally:  # also when somebody presses Ctrl-C again
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
    """Start a Process that is stopped at the end of `running`, also when Ctrl-C comes at this very instant."""
    with _signals_held():
        return running.enter_context(Process(name, command, env=env, cwd=cwd, log=log))


@contextlib.contextmanager
def _signals_held() -> Iterator[None]:
    """Ctrl-C and its like wait for the end of the block: in the middle of starting a child, nobody would stop it."""
    came: list[int] = []
    before = {number: signal.signal(number, lambda number, frame: came.append(number)) for number in _STOPPING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)
        for number in came:
            signal.raise_signal(number)
