"""Takes tries that are locked, in one statement."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Any

from ..database import Instant
from ..requests import TryRef
from .statements import EXECUTIONS, NOW, TRIES, fetched, integers, microseconds, moment, read

REFERENCE = f"""\
t.id, e.id, e.task_path, e.task_name, e.queue_name, {microseconds("t.dispatch_at")}, e.trace_context, e.priority"""
"""SQL: the columns of a try and of its execution that `refs` reads."""
_TAKE = f"""\
UPDATE {TRIES} t SET dispatch_at = {NOW} + make_interval(secs => %(ahead)s),
    publish_count = CASE WHEN %(anew)s THEN 0 ELSE t.publish_count END,
    updated_at = CASE WHEN %(anew)s THEN {NOW} ELSE t.updated_at END
FROM unnest(%(tries)s::bigint[]) AS a (id), {EXECUTIONS} e
WHERE t.id = a.id AND e.id = t.task_execution_id
RETURNING {REFERENCE}
"""


def take_locked(try_ids: Sequence[int], ahead: timedelta, anew: bool, now: Instant) -> dict[int, TryRef]:
    """Put the tries off for so long ahead. `anew`: messages that they may still have no longer count."""
    return refs(fetched(_TAKE, now=now, tries=integers(try_ids), ahead=ahead.total_seconds(), anew=anew))


def refs(found: Iterable[tuple[Any, ...]]) -> dict[int, TryRef]:
    """The references to tries, by their ids, of rows of REFERENCE."""
    return {
        try_id: TryRef(try_id, execution_id, module, function, queue, moment(at), read(trace), priority)
        for try_id, execution_id, module, function, queue, at, trace, priority in found
    }
