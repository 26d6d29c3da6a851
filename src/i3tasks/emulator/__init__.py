"""The embedded Pub/Sub: a local broker that speaks google.pubsub.v1 and keeps its messages in SQLite.

It is meant for development and tests. `python -m i3tasks.emulator` starts it; `EmulatorProcess` starts it as a child
process. It needs neither Django nor the rest of i3tasks. The names here are loaded when first used, because importing
the gRPC server takes time.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .command import main
    from .process import EmulatorError, EmulatorProcess
    from .seed import Seed

_HOMES = {"EmulatorError": "process", "EmulatorProcess": "process", "Seed": "seed", "main": "command"}

__all__ = ["EmulatorError", "EmulatorProcess", "Seed", "main"]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{home}", __name__), name)
