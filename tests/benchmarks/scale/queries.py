"""The queries of loops, health, audit and the admin, with their times and plans."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import timedelta
from typing import Any

from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

REPEATS = 5


def questions() -> dict[str, tuple[float, Callable[[], Any]]]:
    """By name: the milliseconds that each may take, and what asks it."""
    from i3tasks.core.clock import SYSTEM_CLOCK
    from i3tasks.store import audit, dispatching, expiry, fallback, figures, health
    from i3tasks.store.ages import Ages
    from i3tasks.store.retention import clean, old_executions

    waiting = fallback.WaitingRequest(("queue",), timedelta(0), timedelta(0), room=100, threads=100)
    ages, all_ages = Ages.of(timedelta(days=3650)), Ages.of(timedelta(0))
    assert ages is not None
    assert all_ages is not None
    return {
        "loop: take_due": (5, lambda: dispatching.take_due(100)),
        "loop: next_due": (5, lambda: dispatching.next_due(timedelta(seconds=0.5))),
        "loop: expire_leases": (5, lambda: expiry.expire_leases(100, clock=SYSTEM_CLOCK)),
        "loop: take_waiting": (5, lambda: fallback.take_waiting([waiting])),
        "retention: nothing is old": (5, lambda: list(old_executions(ages, timezone.now())[:100])),
        "retention: all are old, until the first batch is deleted": (1000, lambda: _first_batch(clean, all_ages)),
        "gauges": (50, lambda: figures.figures(timezone.now())),
        "health": (50, lambda: asyncio.run(health.health(SYSTEM_CLOCK.now()))),
        "audit": (2000, audit.audit),
        **{f"admin: {name}": (50, _listed(query)) for name, query in LISTS.items()},
    }


def _first_batch(clean: Callable[..., Any], ages: Any) -> None:
    class Deleted(Exception):
        """Ends the cleaning."""

    def stop(_: int) -> None:
        raise Deleted

    with suppress(Deleted):
        clean(ages, now=timezone.now(), progress=stop)


LISTS = {
    "first page": "",
    "failed": "state=failed",
    "cancelled": "state=cancelled",
    "search without a hit": "q=nothing-has-this-name",
}


def _listed(query: str) -> Callable[[], Any]:
    """Asks for a page of the admin's list of executions, as its superuser."""
    from django.contrib.admin.sites import site
    from django.test import RequestFactory

    from i3tasks.models import TaskExecution

    def ask() -> None:
        request = RequestFactory().get(f"/?{query}")
        request.user = _Superuser()
        response = site.get_model_admin(TaskExecution).changelist_view(request)
        response.render()

    return ask


class _Superuser:
    """One without a row."""

    is_active = is_staff = is_superuser = is_authenticated = True
    pk = id = 1

    def has_perm(self, *_: Any) -> bool:
        return True

    has_module_perms = has_perm

    def get_username(self) -> str:
        return "benchmark"


def measured() -> Iterator[dict[str, Any]]:
    """The median of some times of each, in a transaction that is rolled back; its plans where it takes too long."""
    for name, (most, ask) in questions().items():
        try:
            times = sorted(_timed(ask) for _ in range(REPEATS))
            median = times[len(times) // 2]
            plans = list(_plans(ask)) if median > most else []
            yield {"query": name, "ms": median, "most_ms": most, "plans": plans}
        except Exception as error:
            yield {"query": name, "error": f"{type(error).__name__}: {error}"}


def _timed(ask: Callable[[], Any]) -> float:
    with transaction.atomic():
        began = time.perf_counter()
        ask()
        milliseconds = (time.perf_counter() - began) * 1000
        transaction.set_rollback(True)
    return milliseconds


def _plans(ask: Callable[[], Any]) -> Iterator[str]:
    with CaptureQueriesContext(connection) as captured, transaction.atomic():
        ask()
        transaction.set_rollback(True)
    for query in captured:
        if query["sql"].startswith(("SELECT", "(SELECT", "WITH")) and float(query["time"]) > 0.002:
            with transaction.atomic(), connection.cursor() as cursor:
                cursor.execute(f"EXPLAIN (ANALYZE, BUFFERS) {query['sql']}")
                yield f"{query['time']} s: {query['sql'][:300]}\n" + "\n".join(row[0] for row in cursor.fetchall())
                transaction.set_rollback(True)
