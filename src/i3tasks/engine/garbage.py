"""The garbage collector of a process that only runs tries.

It starts whenever so many more objects were made than freed, and walks through those that live. A few hundred tries
under way are some ten thousand objects, which their end frees without it. With Python's thresholds it would walk
through them several times for each batch of claims, and now and then through all that the project has imported.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

OBJECTS_OF_A_TRY = 100
"""What a message, its claim, its body and its settlement hold at the same time, roughly."""
MOST_OBJECTS = 100_000
"""So that the cycles of bodies, which may hold much more than their own size, are not left for too long."""


@contextmanager
def collected_rarely(concurrency: int) -> Iterator[None]:
    """While the block runs, collect after more objects than that many tries hold, and leave alone what lives already.

    A higher threshold of the project's stays, and so does a collector that the project has switched off.
    """
    before = gc.get_threshold()
    gc.freeze()
    if before[0]:
        enough = min(concurrency * OBJECTS_OF_A_TRY, MOST_OBJECTS)
        gc.set_threshold(max(before[0], enough), *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()
