"""Tables for a terminal."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from typing import Any

GAP = "  "
NARROWEST = 8
"""To so many characters a column is cut, and no further."""


def table(head: Sequence[str], lines: Sequence[Sequence[Any]], width: int | None = None) -> str:
    """The lines below the head, in columns. With a `width`, the widest columns are cut until a line has no more."""
    cells = [[*head], *([plain(cell) for cell in line] for line in lines)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    if width is not None:
        _narrow(widths, width - len(GAP) * (len(widths) - 1))
    return "\n".join(
        GAP.join(_cut(cell, size).ljust(size) for cell, size in zip(line, widths, strict=True)).rstrip()
        for line in cells
    )


def plain(value: Any) -> str:
    """A cell's text in one line, "-" for none. What would move a terminal's cursor is shown as "?"."""
    text = "-" if value is None or value == "" else " ".join(str(value).split())
    return "".join(character if character.isprintable() else "?" for character in text)


def width_of(stream: Any) -> int | None:
    """The columns of the terminal that the stream writes to; None if it is no terminal."""
    is_terminal = getattr(stream, "isatty", None)
    return shutil.get_terminal_size().columns if is_terminal is not None and is_terminal() else None


def _narrow(widths: list[int], total: int) -> None:
    while sum(widths) > total and max(widths) > NARROWEST:
        widest = widths.index(max(widths))
        second = max([*(size for size in widths if size < widths[widest]), NARROWEST])
        widths[widest] = max(second, widths[widest] - max(sum(widths) - total, 1), NARROWEST)


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 1]}…"
