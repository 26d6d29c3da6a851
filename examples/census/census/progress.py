"""A progress display: a bar on a terminal, plain lines now and then in other output."""

import time
from typing import TextIO

BAR = 36
SECONDS_BETWEEN_LINES = 2.0


class Progress:
    """Shows the part of `total` that is done, and a note. Call `show` as often as you like, and `close` at the end."""

    def __init__(self, total: int, stream: TextIO) -> None:
        self._total = total
        self._stream = stream
        self._terminal = stream.isatty()
        self._started = time.monotonic()
        self._next_line = self._started

    def show(self, done: int, note: str) -> None:
        if self._terminal:
            self._stream.write(f"\r\033[K{self._bar(done)} {self._numbers(done, note)}")
            self._stream.flush()
        elif time.monotonic() >= self._next_line:
            self._line(done, note)
            self._next_line = time.monotonic() + SECONDS_BETWEEN_LINES

    def close(self, done: int, note: str) -> None:
        if self._terminal:
            self.show(done, note)
            self._stream.write("\n")
        else:
            self._line(done, note)

    def _line(self, done: int, note: str) -> None:
        self._stream.write(f"{self._numbers(done, note)}\n")
        self._stream.flush()

    def _bar(self, done: int) -> str:
        filled = BAR * done // max(self._total, 1)
        return "[" + "#" * filled + "-" * (BAR - filled) + "]"

    def _numbers(self, done: int, note: str) -> str:
        elapsed = time.monotonic() - self._started
        return f"{100 * done // max(self._total, 1):3d} %  {note}, {elapsed:.1f} s"
