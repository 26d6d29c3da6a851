"""The Python standard library on this machine: which files it has, and their text."""

import io
import sysconfig
import tokenize
from pathlib import Path

# Packages that were installed beside the library, and the library's own tests (some can't be parsed, on purpose).
LEFT_OUT = {"site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__"}


def folder() -> Path:
    return Path(sysconfig.get_paths()["stdlib"]).resolve()


def paths() -> list[str]:
    """The library's source files, relative to its folder, in order."""
    top = folder()
    found = (path.relative_to(top) for path in top.rglob("*.py"))
    return sorted(path.as_posix() for path in found if not LEFT_OUT.intersection(path.parts))


def read(path: str) -> str:
    """The text of one of `paths()`. Raises FileNotFoundError for anything else, whatever lies there."""
    file = (folder() / path).resolve()
    if not file.is_relative_to(folder()) or file.suffix != ".py":
        raise FileNotFoundError(path)
    content = file.read_bytes()
    encoding, _ = tokenize.detect_encoding(io.BytesIO(content).readline)
    return content.decode(encoding, errors="replace")
