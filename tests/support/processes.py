"""Child processes of tests: waited for by what they say, and found again wherever they hide."""

import contextlib
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from uuid import uuid4

import psutil

MARK = "I3TASKS_TEST_MARK"


class Marked:
    """A command and everything that it starts, told apart by a mark in their environment. Its output is in a file."""

    def __init__(self, output: Path) -> None:
        self._output = output
        self._mark = uuid4().hex
        self._popen: subprocess.Popen[bytes] | None = None

    def start(
        self, command: Sequence[str], *, env: Mapping[str, str], cwd: Path, terminal: int | None = None
    ) -> "Marked":
        """Start it, with its output in the file, or in a terminal where one is given."""
        with open(self._output, "wb") as output:
            self._popen = subprocess.Popen(
                command,
                env={**env, MARK: self._mark},
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=output if terminal is None else terminal,
                stderr=subprocess.STDOUT,
            )
        return self

    def wait(self, seconds: float = 240) -> int:
        """Its exit code."""
        assert self._popen
        return self._popen.wait(seconds)

    def until(self, condition: Callable[[], bool], seconds: float = 120) -> None:
        """Until the condition holds; fails with the output when the process ends before, or time is up."""
        assert self._popen
        deadline = time.monotonic() + seconds
        while not condition():
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._popen.wait(0.05)
            assert self._popen.poll() is None, self.text()
            assert time.monotonic() < deadline, self.text()

    def until_says(self, text: str, seconds: float = 120) -> None:
        self.until(lambda: text in self.text(), seconds)

    def send(self, number: int) -> None:
        assert self._popen
        self._popen.send_signal(number)

    def text(self) -> str:
        return self._output.read_text(encoding="utf-8") if self._output.exists() else ""

    def processes(self) -> list[psutil.Process]:
        """Those of its processes that live, whichever process is their parent now."""
        return [
            process
            for process in psutil.process_iter(["environ", "status"])
            if (process.info["environ"] or {}).get(MARK) == self._mark
            and process.info["status"] != psutil.STATUS_ZOMBIE
        ]

    def survivors(self) -> list[str]:
        """Their command lines."""
        return [" ".join(process.cmdline()) for process in self.processes()]

    def end(self) -> None:
        """For a test's teardown: ask it to stop if it still runs, then end whatever is left of it."""
        if self._popen and self._popen.poll() is None:
            self._popen.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._popen.wait(30)
        for process in self.processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        if self._popen:
            self._popen.wait(10)
