"""A filter for `logging` and a processor for structlog that tie the log lines of bodies to the try that runs them."""

from __future__ import annotations

import logging
from collections.abc import MutableMapping
from typing import Any

from .catalogue import TRY
from .context import run_facts


class TaskFilter(logging.Filter):
    """Gives each record the attributes of the try that runs: `execution_id`, `task`, `try_number` and the others.

    Outside of a body they are None, so that a format string may name them. Put it on a handler: filters of a logger do
    not see what its children log.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        facts = run_facts()
        if not hasattr(record, "i3tasks_run"):
            record.i3tasks_run = facts
            for name in TRY:
                if not hasattr(record, name):
                    setattr(record, name, facts.get(name))
        return True


def add_task(logger: Any, method: str, event_dict: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Add the fields of the try that runs to an entry of structlog. What the entry itself says stays."""
    for name, fact in run_facts().items():
        event_dict.setdefault(name, fact if isinstance(fact, int) else str(fact))
    return event_dict
