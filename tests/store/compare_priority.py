"""What a claim costs while tries of several priorities wait:

    python -m pytest -n 0 -s --db postgres tests/store/compare_priority.py

CPU of the thread that runs the store, and the statements of a batch, by situation, in turns. No test: nothing is
asserted of the times, and a plain run does not collect it.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import replace

import pytest
from django.db import connection

from i3tasks.models import TaskExecution, TaskExecutionTry
from i3tasks.store.claims import claim
from i3tasks.store.dispatching import confirm_published
from i3tasks.store.requests import Claimed, TryRef
from tests.store.helpers import ADD, enqueue, request

pytestmark = pytest.mark.django_db(transaction=True)

BATCH, BATCHES, ROUNDS = 100, 10, 5
CALL = replace(ADD, queue_name="default")
SITUATIONS: dict[str, Sequence[tuple[int, int, str]]] = {
    "all are equal": [],
    "one of a lower priority waits": [(1, -1, "default")],
    "one of a higher priority waits on another queue": [(1, 5, "other")],
    "half have a higher priority": [(BATCH * BATCHES, 5, "default")],
}
"""What waits besides the BATCH * BATCHES tries of priority 0: how many, of which priority, on which queue."""


def test_compare() -> None:
    measured: dict[str, list[tuple[float, float]]] = {name: [] for name in SITUATIONS}
    for number in range(ROUNDS + 1):
        for name, besides in SITUATIONS.items():
            seconds, statements = _claims(besides)
            if number:  # the first one warms up
                measured[name].append((seconds, statements))
    base = statistics.median(cpu for cpu, _ in measured["all are equal"])
    for name, rounds in measured.items():
        cpu = statistics.median(cpu for cpu, _ in rounds)
        print(
            f"\n{name:48} {cpu * 1e6:6.0f} us a try  ratio {cpu / base:.2f}  {rounds[0][1]:.1f} statements a batch",
            end="",
        )
    print()


def _claims(besides: Sequence[tuple[int, int, str]]) -> tuple[float, float]:
    """CPU seconds of a claimed try, and statements of a batch of claims."""
    TaskExecution.objects.all().delete()
    others = [
        item
        for count, level, queue in besides
        for item in enqueue(count, replace(CALL, priority=level, queue_name=queue))
    ]
    tries = enqueue(BATCH * BATCHES, CALL)
    confirm_published([TryRef.of(item) for item in [*tries, *others]])
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE")
    tickets = [*tries, *others][: BATCH * BATCHES]
    statements, won, spent = 0, 0, 0.0

    def count(execute, sql, params, many, context):  # type: ignore[no-untyped-def]
        nonlocal statements
        statements += 1
        return execute(sql, params, many, context)

    for first in range(0, len(tickets), BATCH):
        asked = [request(item, is_ticket=True) for item in tickets[first : first + BATCH]]
        with connection.execute_wrapper(count):
            began = time.thread_time()
            answers = claim(asked)
            spent += time.thread_time() - began
        won += sum(isinstance(answer, Claimed) for answer in answers)
    assert won == len(tickets), won
    assert TaskExecutionTry.objects.filter(claim_token__isnull=False).count() == won
    return spent / won, statements / BATCHES
