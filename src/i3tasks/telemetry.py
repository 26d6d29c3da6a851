"""The one place where events become log lines.

Logic says what happened, `emit("try_settled", try_id=7)`, and nothing about how that is shown.
"""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager, suppress
from typing import Any

import structlog

_LEVELS = {
    "beat_failed": logging.WARNING,
    "broker_unavailable": logging.WARNING,
    "broker_recovered": logging.WARNING,
    "dispatch_failed": logging.WARNING,
    "envelope_refused": logging.ERROR,
    "lease_lost": logging.WARNING,
    "liveness_file_failed": logging.ERROR,
    "provisioning_failed": logging.WARNING,
    "publish_failed": logging.WARNING,
    "publish_confirmed": logging.DEBUG,
    "receiver_restarted": logging.WARNING,
    "schedule_broken": logging.ERROR,
    "schedule_slots_dropped": logging.WARNING,
    "schedule_time_refused": logging.WARNING,
    "settlement_stale": logging.WARNING,
    "store_unavailable": logging.WARNING,
    "store_recovered": logging.WARNING,
    "task_unregistered": logging.ERROR,
    "transaction_left_open": logging.ERROR,
    "try_claimed": logging.DEBUG,
    "try_failed": logging.WARNING,
    "try_refused": logging.DEBUG,
    "try_succeeded": logging.DEBUG,
    "try_unknown": logging.ERROR,
    "tries_lost": logging.ERROR,
    "internal_error": logging.ERROR,
}

_logger = structlog.wrap_logger(
    logging.getLogger("i3tasks"),
    processors=[
        structlog.stdlib.filter_by_level,
        structlog.contextvars.merge_contextvars,
        structlog.processors.format_exc_info,
        structlog.processors.KeyValueRenderer(key_order=["event"]),
    ],
    wrapper_class=structlog.stdlib.BoundLogger,
)


def emit(event: str, **facts: Any) -> None:
    """Record that `event` happened. Never raises: a broken log handler must not stop a worker."""
    with suppress(Exception):
        _logger.log(_LEVELS.get(event, logging.INFO), event, **facts)


def facts_bound(**facts: Any) -> AbstractContextManager[None]:
    """These facts are part of every event in the block, also of those that bodies log through structlog."""
    return structlog.contextvars.bound_contextvars(**facts)
