"""Formatters for log lines: JSON as Cloud Logging reads it, and columns for a terminal.

Both take the records of any logger, and know the events of i3tasks:

    LOGGING = {
        "formatters": {"json": {"()": "i3tasks.telemetry.CloudLoggingFormatter"}},
        ...
    }
"""

from __future__ import annotations

import json
import logging
import math
import os
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from .catalogue import TRY
from .context import Facts, run_facts
from .lines import OF_RECORDS
from .phrases import ENDINGS, rest, sentence, span, trouble
from .tracing import current_trace

LABELS = ("task", "queue", "worker")
LONGEST_TEXT = 100_000
"""Characters of a text in a JSON line: Cloud Logging cuts a line at 256 KB, and then it is no JSON any more."""
DEEPEST = 10


class CloudLoggingFormatter(logging.Formatter):
    """One JSON object a line, with the names that Google Cloud's logging agents give a meaning.

    `project_id` completes the trace's name; without it, the environment's GOOGLE_CLOUD_PROJECT does.
    """

    def __init__(self, project_id: str | None = None) -> None:
        super().__init__()
        self._project_id = project_id or os.environ.get("GOOGLE_CLOUD_PROJECT", "")

    def format(self, record: logging.LogRecord) -> str:
        line = {name: plain(value) for name, value in self._line(record).items()}
        return json.dumps(line, allow_nan=False)  # in ASCII: some readers end a line at U+2028, too

    def _line(self, record: logging.LogRecord) -> dict[str, Any]:
        event = getattr(record, "i3tasks_event", None)
        facts = {**_run_of(record), **(_extra_of(record) if event is None else event)}
        line: dict[str, Any] = {
            "severity": severity(record.levelno),
            "message": _message_of(record) if event is None else sentence(event["event"], event),
            "time": datetime.fromtimestamp(record.created, UTC).isoformat().replace("+00:00", "Z"),
            "logger": record.name,
            **{name: fact for name, fact in facts.items() if name not in _OWN},
            **self._trace(),
        }
        labels = {name: str(facts[name]) for name in LABELS if facts.get(name)}
        if labels:
            line["logging.googleapis.com/labels"] = labels
        line["logging.googleapis.com/sourceLocation"] = {
            "file": record.pathname,
            "line": str(record.lineno),
            "function": record.funcName,
        }
        if stack := _traceback_of(self, record):
            line["stack_trace"] = stack
        return line

    def _trace(self) -> dict[str, Any]:
        trace = current_trace()
        if trace is None:
            return {}
        name = f"projects/{self._project_id}/traces/{trace.trace_id}" if self._project_id else trace.trace_id
        return {
            "logging.googleapis.com/trace": name,
            "logging.googleapis.com/spanId": trace.span_id,
            "logging.googleapis.com/trace_sampled": trace.is_sampled,
        }


class ConsoleFormatter(logging.Formatter):
    """Columns for people: the time, what happened, the task, the execution, how long it ran."""

    def __init__(self, *, colours: bool = False) -> None:
        super().__init__()
        self._colours = colours

    def format(self, record: logging.LogRecord) -> str:
        event = getattr(record, "i3tasks_event", None)
        at = time.strftime("%H:%M:%S", time.localtime(record.created))
        if event is None:
            line = f"{self._word(record.levelname, record.levelno)} {record.name}: {_message_of(record)}"
        elif event["event"] in ENDINGS and "duration" in event:
            line = self._ending(event, record.levelno)
        else:
            line = f"{self._word(record.levelname, record.levelno)} {sentence(event['event'], event)}"
        stack = _traceback_of(self, record)
        return f"{self._faint(at)} {line}" + (f"\n{stack}" if stack else "")

    def _ending(self, event: Mapping[str, Any], level: int) -> str:
        words = [
            self._word(ENDINGS[event["event"]], level),
            f"{event.get('task', ''):<32}",
            f"#{event.get('execution_id', '')} try {event.get('try_number', '')}".ljust(14),
            f"{span(event['duration']):>7}",
            self._faint(f"waited {span(event['queue_time']):>7}  {event.get('queue', '')}"),
        ]
        if "error" in event:
            words.append(trouble(event))
        if "next_try_at" in event:
            words.append(self._faint(f"again at {str(event['next_try_at'])[11:19]} UTC"))
        return " ".join([*words, *rest(event)])

    def _word(self, word: str, level: int) -> str:
        colour = 31 if level >= logging.ERROR else 33 if level >= logging.WARNING else 32 if word == "succeeded" else 36
        return self._coloured(f"{word.lower():<9}", colour)

    def _faint(self, text: str) -> str:
        return self._coloured(text, 2)

    def _coloured(self, text: str, code: int) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self._colours else text


def severity(level: int) -> str:
    """The severity of Cloud Logging for a level of `logging`."""
    for least, name in ((50, "CRITICAL"), (40, "ERROR"), (30, "WARNING"), (20, "INFO"), (10, "DEBUG")):
        if level >= least:
            return name
    return "DEFAULT"


def plain(value: Any, depth: int = 0) -> Any:
    """`value` as JSON can hold it: a value without such a form becomes its text. Never raises."""
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, str):
        text = value if len(value) <= LONGEST_TEXT else f"{value[:LONGEST_TEXT]}..."
        return text.encode("utf-8", "replace").decode()
    try:
        if isinstance(value, Mapping) and depth < DEEPEST:
            return {str(name): plain(item, depth + 1) for name, item in list(value.items())}
        if isinstance(value, (list, tuple, set, frozenset)) and depth < DEEPEST:
            return [plain(item, depth + 1) for item in value]
        if isinstance(value, bytes):
            return plain(value.decode("utf-8", "backslashreplace"))
        return plain(value.isoformat() if isinstance(value, datetime) else str(value))
    except Exception as error:
        return f"<{type(value).__name__} whose text raised {type(error).__name__}>"


_OWN = ("event_", "i3tasks_event", "i3tasks_run", "severity", "message", "time", "logger")


def _run_of(record: logging.LogRecord) -> Facts:
    """The try whose body logged the record: as the filter noted it, else that of this context."""
    noted: Facts | None = getattr(record, "i3tasks_run", None)
    return run_facts() if noted is None else noted


def _extra_of(record: logging.LogRecord) -> dict[str, Any]:
    extra = {name: value for name, value in vars(record).items() if name not in OF_RECORDS}
    return {name: value for name, value in extra.items() if value is not None or name not in TRY}


def _message_of(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception:  # arguments that do not fit the text: the text says more than nothing
        return str(record.msg)


def _traceback_of(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    """The traceback as Error Reporting takes it, the error's own text at its end."""
    told = getattr(record, "stack_trace", None)
    if record.exc_info and record.exc_info[0] is not None:
        try:
            return formatter.formatException(record.exc_info)
        except Exception as error:
            return f"(a traceback that could not be written: {type(error).__name__})"
    return str(told or record.exc_text or record.stack_info or "")
