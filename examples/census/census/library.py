"""The Python standard library on this machine: its files and their text."""

import io
import sysconfig
import tokenize
from pathlib import Path

# Folders of packages that were installed beside the library, and of its own tests, some of which can't be parsed on
# purpose.
LEFT_OUT = {"site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__"}


def folder() -> Path:
    return Path(sysconfig.get_paths()["stdlib"]).resolve()


def paths() -> list[str]:
    """List the library's source files, relative to its folder, sorted."""
    top = folder()
    found = (path.relative_to(top) for path in top.rglob("*.py"))
    return sorted(path.as_posix() for path in found if not LEFT_OUT.intersection(path.parts))


def read(path: str) -> str:
    """Read a source file of the library, by its relative path. Raises FileNotFoundError for every other path."""
    file = (folder() / path).resolve()
    if not file.is_relative_to(folder()) or file.suffix != ".py":
        raise FileNotFoundError(path)
    content = file.read_bytes()
    encoding, _ = tokenize.detect_encoding(io.BytesIO(content).readline)
    return content.decode(encoding, errors="replace")
