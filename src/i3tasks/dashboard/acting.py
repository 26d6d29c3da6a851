"""Acts on one execution or all that match a filter: the pages that confirm an act, carry it out and report on it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect

from ..core.clock import current_clock
from ..engine.board_acts import advance, stop
from ..exceptions import SearchError
from ..models import BoardAct
from ..store.board_acts import begin
from ..store.bulk import APPLIES, Act, narrowed
from ..store.database import rows
from ..store.pauses import ASIDE_FROM
from ..store.search import MOST_COUNTED
from ..store.search_terms import age
from ..store.states import State
from . import searching
from .access import ACT, ARGUMENTS, board_act, board_page, may
from .answering import done, name_of, not_done, way_back
from .lines import lines
from .navigation import url
from .rendering import page

LABELS = {
    Act.RETRY: "Retry",
    Act.CANCEL: "Cancel",
    Act.RUN_NOW: "Run now",
    Act.PUT_OFF: "Put off",
    Act.DISCARD: "Delete",
}
MEANINGS = {
    Act.RETRY: "Each gets one more try, past its max_retries. A chain goes on when it succeeds.",
    Act.CANCEL: "Waiting ones never run. Running ones are told to stop with their worker's next heartbeat.",
    Act.RUN_NOW: "Those that were put off, or wait for their next try, are due at once.",
    Act.PUT_OFF: "Waiting ones do not run before then. Those that are due later anyway stay as they are.",
    Act.DISCARD: "The rows are deleted, with tries and results. This can't be undone. Running ones are not deleted.",
}
DONE = {
    Act.RETRY: "Given another try: {}",
    Act.CANCEL: "Cancelled: {}",
    Act.RUN_NOW: "Due now: {}",
    Act.PUT_OFF: "Put off: {}",
    Act.DISCARD: "Deleted: {}",
}
DELAYS = (
    ("5m", "5 minutes"),
    ("30m", "30 minutes"),
    ("1h", "1 hour"),
    ("6h", "6 hours"),
    ("1d", "1 day"),
    ("7d", "7 days"),
)
AT_ONCE_SECONDS = 1.0
"""How long a request works on an act. The rest is done in the background."""
SHOWN = 10
MOST_ACTS = 100


@board_page
def act(request: HttpRequest) -> HttpResponse:
    """Ask for confirmation: show how many executions match, and the first of them."""
    if not may(request, ACT):
        raise PermissionDenied("Acting on the board asks for i3tasks.act_on_board.")
    now = current_clock().now()
    wanted, asked = _asked(request, request.GET, now)
    assert asked.search is not None
    search = narrowed(asked.search, wanted)
    first = search.page(now, limit=SHOWN)
    return page(
        request,
        "act",
        "executions",
        act=wanted.value,
        label=LABELS[wanted],
        meaning=MEANINGS[wanted],
        asked=asked,
        count=search.count(now),
        is_narrowed=search != asked.search,
        states=", ".join(search.states),
        delays=DELAYS if wanted is Act.PUT_OFF else (),
        lines=lines(first.rows, now, with_texts=may(request, ARGUMENTS)),
        back=way_back(request, url("executions", **asked.asked)),
    )


@board_act
def act_now(request: HttpRequest) -> HttpResponse:
    """Carry out the act: at once for as long as a request may take, the rest in the background."""
    now = current_clock().now()
    wanted, asked = _asked(request, request.POST, now)
    assert asked.search is not None
    search = narrowed(asked.search, wanted)
    try:
        until = now + age(request.POST.get("delay", "")) if wanted is Act.PUT_OFF else None
    except (SearchError, OverflowError) as error:
        raise Http404(str(error)) from error
    if until is not None and until >= ASIDE_FROM:
        raise Http404(f"Nothing can be put off beyond the year {ASIDE_FROM.year - 1}.")
    begun = begin(search, wanted, by=name_of(request), expected=search.count(now).number, until=until, now=now)
    row = advance(begun.pk, seconds=AT_ONCE_SECONDS) or begun
    if row.finished_at is None:
        return HttpResponseRedirect(url("board-act", row.pk))
    level = messages.SUCCESS if row.done else messages.WARNING
    messages.add_message(request, level, _sentence(row), fail_silently=True)
    back = url("executions", **asked.asked) if asked.search.keys is None else url("executions")
    return HttpResponseRedirect(way_back(request, back))


@board_page
def board_act_page(request: HttpRequest, pk: int) -> HttpResponse:
    """Show how far an act has come."""
    row = rows(BoardAct).filter(pk=pk).first()
    if row is None:
        raise Http404("There is no such act. They are kept for 90 days.")
    return page(request, "board_act", "board-acts", act=_shown(request, row))


@board_act
def go_on(request: HttpRequest, pk: int) -> HttpResponse:
    """Work on an act that is unfinished, though the process that began it may be gone."""
    advance(pk, seconds=AT_ONCE_SECONDS)
    return HttpResponseRedirect(url("board-act", pk))


@board_act
def stop_act(request: HttpRequest, pk: int) -> HttpResponse:
    """End an act that is under way. What it has done stays done."""
    row, back = stop(pk, by=name_of(request)), url("board-act", pk)
    if row is None:
        return not_done(request, "There was nothing to stop: the act is finished.", back)
    return done(request, "stop_act", f"act={pk}", row.done, f"Stopped. {_sentence(row)}", back)


@board_page
def board_acts(request: HttpRequest) -> HttpResponse:
    """Show who did what, newest first."""
    newest = rows(BoardAct).order_by("-pk")[:MOST_ACTS]
    return page(request, "board_acts", "board-acts", acts=[_shown(request, row) for row in newest])


def _asked(request: HttpRequest, given: Mapping[str, str], now: datetime) -> tuple[Act, searching.Filter]:
    """The act and the filter that a request names. One that no page of the board makes is a 404."""
    asked = searching.read(request, given, now)
    if given.get("act") not in Act.values or asked.search is None:
        raise Http404(asked.problem or "There is no such act.")
    return Act(given["act"]), asked


def _shown(request: HttpRequest, row: BoardAct) -> dict[str, object]:
    shown = {**row.filter, "argument": "…"} if "argument" in row.filter and not may(request, ARGUMENTS) else row.filter
    return {
        "row": row,
        "label": LABELS[Act(row.act)] if row.act in Act.values else row.act,
        "words": searching.words(shown),
        "link": url("executions", **shown),
        "skipped": sorted(row.skipped.items()),
        **_progress(row),
    }


def _progress(row: BoardAct) -> dict[str, object]:
    """How many it has seen, and of how many: None once there are more than were counted, or when it has ended."""
    seen = row.done + sum(row.skipped.values())
    known = row.finished_at is None and seen <= row.expected
    return {"seen": seen, "most": row.expected if known else None, "is_cut": row.expected >= MOST_COUNTED}


def _sentence(row: BoardAct) -> str:
    """`Cancelled: 3. Left alone: 2, it has ended already.`"""
    skipped = "; ".join(f"{count}, {reason}" for reason, count in sorted(row.skipped.items()))
    what = DONE[Act(row.act)] if row.act in Act.values else f"{row.act}: {{}}"
    return what.format(f"{row.done:,}") + "." + (f" Left alone: {skipped}." if skipped else "")


def applicable(state: str) -> list[tuple[str, str]]:
    """The acts that make sense for an execution in that state."""
    fitting = [one for one, states in APPLIES.items() if state in states]
    deletable = [] if state in (State.RUNNING, "cancelling") else [Act.DISCARD]
    return [(one.value, LABELS[one]) for one in (*fitting, *deletable)]
