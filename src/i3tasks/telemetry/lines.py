"""The log lines of events: through the project's structlog, where that is configured, else the standard library's.

A record of the logger `i3tasks` has the event's name and fields as its text, and each also as an attribute: formatters
that write JSON take them from there.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any

from ..core.text import clean_text
from .catalogue import TRACEBACK, Event
from .context import Facts

LOGGER = logging.getLogger("i3tasks")
LONGEST_FACT = 10_000
UNDECLARED_LEVEL = logging.INFO
FIRST = ("event", "execution_id", "execution_uuid", "try_id")
_CALLER_OF_EMIT = 3
OF_RECORDS = {*vars(logging.makeLogRecord({})), "message", "asctime"}


def has_place() -> bool:
    """Whether the project has set up `logging` or structlog, so that the lines go where it wants them."""
    return _is_structlogs() or LOGGER.hasHandlers()


def is_logged(event: Event) -> bool:
    """Whether a line of this event would be written."""
    if _is_structlogs():
        return _is_enabled(event.level)
    return LOGGER.isEnabledFor(event.level)


def log(event: Event, facts: Facts) -> None:
    """Write the event's line. The exception goes beside it: error trackers read a record's `exc_info`, not its text."""
    told = {name: _told(fact) for name, fact in facts.items() if name != TRACEBACK}
    error = facts.get(TRACEBACK) if event.level >= logging.ERROR else None  # a retry is no alarm
    if _is_structlogs():
        import structlog

        traceback = {} if error is None else {"exc_info": error}
        # By the method of the level: not every logger that a project may have chosen has `log`.
        getattr(structlog.get_logger("i3tasks"), event.level_name.lower())(event.name, **told, **traceback)
        return
    text, attributes = _text_and_attributes(event, told)
    LOGGER.log(event.level, text, exc_info=error, extra=attributes, stacklevel=_CALLER_OF_EMIT)


def record_of(event: Event, facts: Facts) -> logging.LogRecord:
    """The record of an event for a handler that gets it at every level of the logger."""
    text, attributes = _text_and_attributes(event, {name: _told(fact) for name, fact in facts.items()})
    return LOGGER.makeRecord(LOGGER.name, event.level, __file__, 0, text, (), None, extra=attributes)


def log_context() -> dict[str, Any]:
    """The values of structlog's context here."""
    if not _is_loaded():
        return {}
    from structlog.contextvars import get_contextvars

    return get_contextvars()


def _is_loaded() -> bool:
    """Whether anything has imported structlog. Before that, the project can't have set it up or bound a field.

    Importing it takes as long as Django's own `check` of a small project, so only what needs it does.
    """
    return "structlog" in sys.modules


def _is_structlogs() -> bool:
    """Whether the project has set up structlog."""
    if not _is_loaded():
        return False
    import structlog

    return structlog.is_configured()


@dataclass(frozen=True, slots=True)
class _Text:
    """A record's message, written only if a formatter asks for it: those that write JSON do not."""

    told: dict[str, Any]

    def __str__(self) -> str:
        return str(_renderer()(None, "", dict(self.told)))


@cache
def _renderer() -> Callable[..., str]:
    from structlog.processors import KeyValueRenderer

    return KeyValueRenderer(key_order=FIRST, drop_missing=True)


def _text_and_attributes(event: Event, told: dict[str, Any]) -> tuple[_Text, dict[str, Any]]:
    told = {**log_context(), **told, "event": event.name}
    attributes = {name if name not in OF_RECORDS else f"{name}_": fact for name, fact in told.items()}
    return _Text(told), {**attributes, "i3tasks_event": told}


def _told(fact: Any) -> Any:
    """The fact as a log line has it: short, and of a type that every formatter can write."""
    if isinstance(fact, str):  # messages, requests and errors may hold megabytes of foreign text
        return clean_text(fact, LONGEST_FACT)
    if isinstance(fact, float):
        return round(fact, 6)
    if fact is None or isinstance(fact, (bool, int)):
        return fact
    if isinstance(fact, (list, tuple)):
        return [_told(item) for item in fact[:100]]
    if isinstance(fact, bytes):
        return fact[:LONGEST_FACT]
    return clean_text(fact.isoformat() if isinstance(fact, datetime) else str(fact), LONGEST_FACT)


def _is_enabled(level: int) -> bool:
    """Ask the project's logger. One that can't say gets everything."""
    import structlog

    kind = structlog.get_config()["wrapper_class"]  # the class: its instances have every attribute
    name = next((name for name in ("is_enabled_for", "isEnabledFor") if hasattr(kind, name)), None)
    return True if name is None else bool(getattr(structlog.get_logger("i3tasks"), name)(level))
