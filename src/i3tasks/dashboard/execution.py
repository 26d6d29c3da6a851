"""The page of one execution: its tries over time, its arguments and result, its chain and groups, and its buttons."""

from __future__ import annotations

import json
from typing import Any

from django.core.serializers.json import DjangoJSONEncoder
from django.http import Http404, HttpRequest, HttpResponse

from ..core.clock import current_clock
from ..core.values import shown
from ..models import TaskExecution, TaskExecutionTry, TryState
from ..store.concealing import column_of
from ..store.database import rows
from ..store.lineage import lineage
from ..store.states import telling_of
from ..store.status import shown_result
from . import graph, timeline
from .access import ARGUMENTS, board_page, may
from .acting import DELAYS, applicable
from .lines import queue_of, shown_state
from .rendering import page
from .stacks import stack_of

MOST_TRIES = 50
LONGEST_TEXT = 20_000


@board_page
def execution(request: HttpRequest, pk: int) -> HttpResponse:
    """Show the page of one execution."""
    row = rows(TaskExecution).filter(pk=pk).first()
    if row is None:
        raise Http404("There is no such execution. Retention may have deleted it.")
    now = current_clock().now()
    latest = rows(TaskExecutionTry).filter(task_execution=pk).select_related("result").order_by("-try_number")
    tries = list(latest[: MOST_TRIES + 1])
    state = shown_state(row, telling_of(tries), now)
    shows_values = may(request, ARGUMENTS)
    attempts = [
        timeline.attempt(one, now, state=_state_of_try(one, state), **_result(one, shows_values=shows_values))
        for one in tries[:MOST_TRIES]
    ]
    relations = lineage(row)
    return page(
        request,
        "execution",
        "executions",
        execution=row,
        state=state,
        queue=queue_of(row),
        attempts=attempts,
        has_more_tries=len(tries) > MOST_TRIES,
        chart=timeline.chart(attempts[::-1], now) if attempts else "",
        graph=graph.picture(row, state, relations, now) if relations else "",
        stack=stack_of(tries, now) if shows_values else None,
        values=_values(row) if shows_values else [],
        trace=_trace(row, shows_values=shows_values),
        acts=applicable(state),
        delays=DELAYS,
    )


def _state_of_try(one: TaskExecutionTry, state_of_execution: str) -> str:
    state = TryState.of(one)
    if state is TryState.PENDING:
        return "deferred" if one.run_after is not None and one.run_after > current_clock().now() else "waiting"
    if state is TryState.RUNNING:
        return state_of_execution if state_of_execution in ("cancelling", "lost") else "running"
    return "succeeded" if state is TryState.SUCCESS else "failed"


def _result(one: TaskExecutionTry, *, shows_values: bool) -> dict[str, str]:
    result = getattr(one, "result", None)
    if result is None or not shows_values:
        return {}
    found = shown_result(one)
    text = found if isinstance(found, str) and not one.is_success else _json(found)
    return {"result": _cut(text), "text_of": result.text_of or ""}


def _values(row: TaskExecution) -> list[tuple[str, str]]:
    """The call's arguments, for users who may see them. Sensitive arguments are hidden from these users, too."""
    named = [
        ("Arguments", column_of(row, "task_args")),
        ("Keyword arguments", column_of(row, "task_kwargs")),
        ("Options of the call", column_of(row, "options")),
    ]
    return [(label, _cut(_json(shown(value)))) for label, value in named if value]


def _trace(row: TaskExecution, *, shows_values: bool) -> list[tuple[str, str]]:
    """The id of its trace; and for users who may see arguments the log context, which can hold as much."""
    travels = row.trace_context if isinstance(row.trace_context, dict) else {}
    parts = str(travels.get("traceparent", "")).split("-")
    found = [("Trace", parts[1])] if len(parts) == 4 else []
    context: Any = travels.get("context") if shows_values else None
    return found + [(str(name), str(value)) for name, value in context.items()] if isinstance(context, dict) else found


def _json(value: Any) -> str:
    try:
        return json.dumps(value, cls=DjangoJSONEncoder, ensure_ascii=False, indent=2)
    except (RecursionError, TypeError, ValueError):
        return "(nested too deeply to be shown)"


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST_TEXT else f"{text[:LONGEST_TEXT]}\n… ({len(text):,} characters)"
