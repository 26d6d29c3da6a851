"""The stack of a running try, on request: for those who may see arguments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.http import Http404, HttpRequest, HttpResponse

from ..core.clock import current_clock
from ..exceptions import StoreUnavailable
from ..models import StackRequest, TaskExecutionTry, TryState
from ..store.database import rows
from ..store.stacks import ask, request_of, why_not
from .access import board_question
from .answering import done, name_of, not_done
from .navigation import url


@dataclass(frozen=True, slots=True)
class Stack:
    """The facts that the page shows: the request, if there is one, and the reason why there is no stack."""

    request: StackRequest | None
    why_not: str
    can_ask: bool


@board_question
def ask_stack(request: HttpRequest, pk: int) -> HttpResponse:
    """Ask the worker that runs this execution where its body is."""
    found: Any = rows(TaskExecutionTry).filter(task_execution=pk).order_by("-try_number")
    latest = found.first()
    if latest is None:
        raise Http404("There is no such execution. Retention may have deleted it.")
    back = f"{url('execution', pk)}#board-stack"
    if TryState.of(latest) is not TryState.RUNNING:
        return not_done(request, "It is not running, so there is no stack to take.", back)
    try:
        ask(latest.pk, by=name_of(request), now=current_clock().now())
    except StoreUnavailable as error:
        return not_done(request, str(error), back)
    return done(request, "stack", f"execution={pk}", 1, "Asked for the stack: it is shown here when it comes.", back)


def stack_of(tries: Sequence[TaskExecutionTry], now: datetime) -> Stack | None:
    """The stack to show of the newest of these tries, which is the first; None: there is nothing to show."""
    if not tries:
        return None
    asked = request_of(tries[0])
    can_ask = TryState.of(tries[0]) is TryState.RUNNING
    if asked is None and not can_ask:
        return None
    return Stack(asked, "" if asked is None else why_not(asked, tries[0], now), can_ask)
