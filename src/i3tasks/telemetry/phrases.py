"""Events in words: the one sentence that a person reads first."""

from __future__ import annotations

from typing import Any

from .advice import advice_about
from .catalogue import TRY
from .context import Facts

_TOLD = {*TRY, "event", "duration", "queue_time", "error_class", "error", "next_try", "next_try_at", "stack_trace"}
_ABOUT = {"execution_id": "execution", "try_number": "try"}
ENDINGS = {
    "try_succeeded": "succeeded",
    "try_failed": "retry",
    "execution_failed": "failed",
    "execution_cancelled": "cancelled",
}
"""The words on a terminal for the events that end a try."""


def sentence(event: str, facts: Facts) -> str:
    """`try_failed shop.tasks.charge (execution 7, try 1, 120 ms): CardDeclined: no money`, and what to do about it."""
    parts = [event]
    if "task" in facts:
        parts.append(str(facts["task"]))
    about = [f"{word} {facts[name]}" for name, word in _ABOUT.items() if name in facts]
    if "duration" in facts:
        about.append(span(facts["duration"]))
    if "task" in facts and about:
        parts.append(f"({', '.join(about)})")
    said = " ".join([*parts, *rest(facts)]) + (f": {trouble(facts)}" if "error" in facts else "")
    advice = advice_about(event)
    return f"{said}{'' if said.endswith('.') else '.'} {advice}" if advice else said


def rest(facts: Facts) -> list[str]:
    """The facts that neither name the try nor say what went wrong, as `name=value`."""
    return [f"{name}={value}" for name, value in facts.items() if name not in _TOLD]


def trouble(facts: Facts) -> str:
    """`CardDeclined: no money`, in one line."""
    kind = str(facts.get("error_class") or "").rpartition(".")[2]
    said = " ".join(str(facts.get("error", "")).split())
    return f"{kind}: {said}" if kind and said else kind or said


def span(seconds: Any) -> str:
    """A time in the unit that people think in: `350 us`, `12 ms`, `3.4 s`, `5 min`, `2.5 h`."""
    seconds = float(seconds)
    if seconds < 0.001:
        return f"{seconds * 1e6:.0f} us"
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 120:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.3g} h"
