"""The data folder. Only its owner can read it, because it holds messages and the key that signs push tokens."""

from __future__ import annotations

import os
from pathlib import Path

DATABASE = "emulator.sqlite3"
_BESIDE = ("-wal", "-shm", "-journal")
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0)


def prepare(folder: Path) -> Path:
    """Make the folder if it is missing, and return the path of its database, which only its owner can read.

    An existing folder keeps its mode, and an existing file its content. Raises OSError, and FileExistsError if a
    symbolic link, or anything else that is no file, has the name of one of the emulator's files.
    """
    if folder.is_symlink():
        raise FileExistsError(None, "it is a symbolic link, which could lead anywhere", str(folder))
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.mkdir(mode=0o700, exist_ok=True)
    _write_new(folder / ".gitignore", b"*\n")
    database = folder / DATABASE
    _write_new(database, b"")
    for path in (database, *(folder / f"{DATABASE}{end}" for end in _BESIDE)):
        _require_own_file(path)
    return database


def _write_new(path: Path, content: bytes) -> None:
    """Write the file unless the name is taken."""
    try:
        with open(os.open(path, _NEW, 0o600), "wb") as file:
            file.write(content)
    except FileExistsError:
        pass


def _require_own_file(path: Path) -> None:
    if path.is_symlink() or (path.exists() and not path.is_file()):
        raise FileExistsError(None, f"its {path.name} is a symbolic link, or no file", str(path))
    if path.exists():
        path.chmod(0o600)
