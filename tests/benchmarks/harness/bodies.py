"""The bodies that every contestant runs, and the record that they leave behind.

Each body appends one record of fixed size (index, time in ns, phase) to a file with a single O_APPEND write, which
costs one or two microseconds. The record is the honest counter: a task has run only if its body wrote its index.
Phase 0: the body began; phase 1: it ended, written by those that sleep.
"""

from __future__ import annotations

import asyncio
import os
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .measure import Measure

RECORD = struct.Struct("<qqq")
SLEEP_SECONDS = 0.1
_file: int | None = None


def noop_sync(index: int) -> int:
    _write(index, 0)
    return index


async def noop_async(index: int) -> int:
    _write(index, 0)
    return index


def io_sync(index: int) -> int:
    _write(index, 0)
    time.sleep(SLEEP_SECONDS)
    _write(index, 1)
    return index


async def io_async(index: int) -> int:
    _write(index, 0)
    await asyncio.sleep(SLEEP_SECONDS)
    _write(index, 1)
    return index


BODIES: dict[str, Callable[[int], Any]] = {
    "noop_sync": noop_sync,
    "noop_async": noop_async,
    "io_sync": io_sync,
    "io_async": io_async,
}


def records_of(kind: str) -> int:
    """How many records a body of this kind writes."""
    return 2 if kind.startswith("io") else 1


def read(path: Path) -> list[tuple[int, int, int]]:
    """All records so far: (index, time in ns, phase)."""
    data = path.read_bytes() if path.exists() else b""
    return list(RECORD.iter_unpack(data[: len(data) // RECORD.size * RECORD.size]))


def count(path: Path) -> int:
    """How many records there are."""
    try:
        return path.stat().st_size // RECORD.size
    except FileNotFoundError:
        return 0


def _write(index: int, phase: int) -> None:
    global _file
    if _file is None:
        _file = os.open(Measure.current().record, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.write(_file, RECORD.pack(index, time.time_ns(), phase))
