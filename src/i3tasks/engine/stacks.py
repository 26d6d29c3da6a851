"""The stack of a body, as files, lines and functions. Never the values of its variables.

A stack may be taken from any thread, also while the body blocks the event loop.
"""

from __future__ import annotations

import asyncio
import re
import sys
import traceback
from collections.abc import Iterable, Iterator
from types import FrameType
from typing import Any

MOST_FRAMES = 100
MOST_AWAITED = 5
_CALLERS = ("bodies.py", "child.py")
_FRAME = re.compile(r'^  File "(.*)", line (\d+) in (.*)$', re.MULTILINE)


def stack_of_thread(ident: int | None) -> str:
    """The stack of a body in this thread; "" if there is none."""
    frame = sys._current_frames().get(ident or 0)
    frames = [] if frame is None else [*traceback.walk_stack(frame)]
    return _written(_within_body(_summary(reversed(frames))))


def stack_of_task(task: asyncio.Task[Any], loop_thread: int) -> str:
    """The stack of a coroutine: where it awaits, down to the innermost; or where it runs, in the loop's thread."""
    coroutine: Any = task.get_coro()
    if getattr(coroutine, "cr_running", False):
        return stack_of_thread(loop_thread)
    text = _written(_within_body(_summary(_awaits(coroutine))))
    return text + "".join(_of_awaited(task))


def stack_of_dump(dump: str) -> str:
    """The same, of what faulthandler writes: its frames stand the other way round, and have no source."""
    frames = [(name, int(line), function) for name, line, function in _FRAME.findall(dump)]
    summary = traceback.StackSummary.from_list(
        [traceback.FrameSummary(name, line, function) for name, line, function in reversed(frames)]
    )
    return _written(_within_body(summary))


def _awaits(awaited: Any) -> Iterator[tuple[FrameType, int]]:
    """The frames of a coroutine, and of what it awaits, the outermost first."""
    for _ in range(MOST_FRAMES):
        for kind in ("cr", "gi", "ag"):
            frame = getattr(awaited, f"{kind}_frame", None)
            if frame is not None:
                yield frame, frame.f_lineno
                awaited = getattr(awaited, "gi_yieldfrom" if kind == "gi" else f"{kind}_await")
                break
        else:
            return


def _of_awaited(task: asyncio.Task[Any]) -> Iterator[str]:
    """The stacks of tasks that a task awaits, as `asyncio.gather` does."""
    waiter: Any = getattr(task, "_fut_waiter", None)
    found = [waiter] if isinstance(waiter, asyncio.Task) else list(getattr(waiter, "_children", ()))
    awaited = [one for one in found if isinstance(one, asyncio.Task) and not one.done()]
    for number, one in enumerate(awaited[:MOST_AWAITED], 1):
        yield f"\nTask {number} of {len(awaited)} that it awaits:\n{_written(_summary(_awaits(one.get_coro())))}"


def _summary(frames: Iterable[tuple[FrameType, int]]) -> traceback.StackSummary:
    return traceback.StackSummary.extract(iter([*frames]), capture_locals=False)


def _within_body(frames: traceback.StackSummary) -> list[traceback.FrameSummary]:
    """Without the frames of i3tasks around the body: those up to the last that calls one."""
    ours = __file__.removesuffix("stacks.py")
    begins = 0
    for number, frame in enumerate(frames):
        if frame.filename in [f"{ours}{name}" for name in _CALLERS] and frame.name in ("call", "acall", "_call"):
            begins = number + 1
    return frames[begins:] or list(frames)


def _written(frames: Iterable[traceback.FrameSummary]) -> str:
    listed = [*frames]
    cut = [f"  ... {len(listed) - MOST_FRAMES} more frames\n"] if len(listed) > MOST_FRAMES else []
    return "".join(cut + traceback.format_list(listed[-MOST_FRAMES:]))
