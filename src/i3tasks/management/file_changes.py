"""Changes of a project's files: shown as a difference, and written when that is wanted."""

from __future__ import annotations

import difflib
import io
import os
import re
import shutil
import sys
import tempfile
import tokenize
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class SourceText:
    """The text of a file, its coding, and the ends of its lines where they are all the same."""

    text: str
    encoding: str = "utf-8"
    newline: str = "\n"

    @classmethod
    def of(cls, path: Path) -> SourceText:
        """Read as Python reads it. Raises OSError; SyntaxError or UnicodeDecodeError where its coding is wrong."""
        raw = path.read_bytes()
        encoding, _ = tokenize.detect_encoding(io.BytesIO(raw).readline)
        text = raw.decode(encoding)
        if "\r" in text and not re.search(r"\r(?!\n)|(?<!\r)\n", text):
            return cls(text.replace("\r\n", "\n"), encoding, "\r\n")
        return cls(text, encoding)


@dataclass(frozen=True, slots=True)
class FileChange:
    """A file, before and after. `before` is None where there is none yet."""

    path: Path
    before: SourceText | None
    after: str

    @property
    def name(self) -> str:
        return shown_path(self.path)

    def diff(self) -> str:
        old = _lines("" if self.before is None else self.before.text)
        source = f"a/{self.name}" if self.before is not None else "/dev/null"
        found = difflib.unified_diff(old, _lines(self.after), source, f"b/{self.name}")
        return "".join(line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in found)

    def write(self) -> None:
        """Write it whole or not at all, with the coding, the ends of lines and the mode that it had."""
        how = self.before or SourceText("")
        content = self.after.replace("\n", how.newline).encode(how.encoding)
        path = self.path.resolve()
        if self.before is None:
            path.write_bytes(content)
            return
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
            shutil.copymode(path, name)
            os.replace(name, path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise


def _lines(text: str) -> list[str]:
    return re.findall(r"[^\n]*\n|[^\n]+", text)


def shown_path(path: Path) -> str:
    """The path as seen from the current folder, if it lies in it."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def is_wanted() -> bool:
    """Ask at the terminal whether to write. Without a terminal, the answer is no."""
    if not sys.stdin.isatty():
        return False
    try:
        return input("Write this? [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        return False
