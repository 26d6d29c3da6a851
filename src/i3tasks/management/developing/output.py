"""The output of several processes on one terminal, each line behind the name of its process."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable
from typing import TextIO

COLOURS = {"web": 36, "worker": 32, "beat": 35, "emulator": 33, "dev": 1}
WIDTH = max(map(len, COLOURS))


class Terminal:
    """Writes whole lines, from any thread."""

    def __init__(self, stream: TextIO) -> None:
        self.has_colours = stream.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"
        self._stream = stream
        self._lock = threading.Lock()

    def writer(self, name: str) -> Callable[[str], None]:
        """A function that writes lines of this process."""
        prefix = f"{name:<{WIDTH}} | "
        if self.has_colours:
            prefix = f"\x1b[{COLOURS[name]}m{prefix}\x1b[0m"

        def write(text: str) -> None:
            with self._lock:
                self._stream.writelines(f"{prefix}{line}\n" for line in text.splitlines() or [""])
                self._stream.flush()

        return write

    def reader(self, name: str) -> Callable[[Iterable[bytes]], None]:
        """A function that writes all that a process prints, until that ends."""
        write = self.writer(name)

        def read(lines: Iterable[bytes]) -> None:
            for line in lines:
                write(line.decode("utf-8", "replace").rstrip("\r\n"))

        return read
