"""A pseudo-terminal for tests, with a process in front that Ctrl-C reaches."""

from __future__ import annotations

import os
import pty
import re
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from tests.support.processes import Marked

# Makes the terminal that stdout is the controlling one, so that Ctrl-C typed there becomes a signal.
LEAD = """
import fcntl, os, sys, termios
os.setsid()
fcntl.ioctl(1, termios.TIOCSCTTY, 0)
os.execvp(sys.argv[1], sys.argv[1:])
"""
COLOURS = re.compile(r"\x1b\[[\d;]*m")


class InTerminal(Marked):
    """A command that runs in a terminal of its own."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder / "unused.txt")
        self._main, self._inner = pty.openpty()
        self._said = ""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def open(self, command: Sequence[str], env: Mapping[str, str], folder: Path) -> None:
        leader = [sys.executable, "-S", "-c", LEAD]
        self.start([*leader, *command], env={**env, "TERM": "xterm"}, cwd=folder, terminal=self._inner)

    def type(self, keys: bytes) -> None:
        os.write(self._main, keys)

    def text(self) -> str:
        """What it shows, without colours."""
        return COLOURS.sub("", self._said)

    @property
    def coloured(self) -> str:
        return self._said

    def end(self) -> None:
        super().end()
        os.close(self._inner)
        self._reader.join(5)
        os.close(self._main)

    def _read(self) -> None:
        with suppress(OSError):  # the last process has closed it
            while read := os.read(self._main, 65_536):
                self._said += read.decode("utf-8", "replace")
