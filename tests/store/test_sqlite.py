"""SQLite as Django opens it by default: our transactions wait for their turn, and are not told that it is locked."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from django.db import OperationalError, connection, connections, transaction
from django.utils import timezone

from i3tasks.core.clock import SYSTEM_CLOCK
from i3tasks.core.outcome import Success
from i3tasks.models import TaskExecutionTry
from i3tasks.store.cancel import cancel
from i3tasks.store.claims import claim
from i3tasks.store.database import atomic
from i3tasks.store.dispatching import take_due
from i3tasks.store.expiry import expire_leases
from i3tasks.store.groups import expire_groups
from i3tasks.store.leases import renew
from i3tasks.store.requests import Claimed
from i3tasks.store.settle import settle
from tests.shop.models import Order
from tests.store.helpers import enqueue, in_threads, lease, request, says
from tests.store.test_claims import Heartbeat

pytestmark = [pytest.mark.sqlite, pytest.mark.django_db(transaction=True)]


@pytest.fixture
def by_default(transactional_db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Connections without our options, but for the time that they wait."""
    monkeypatch.setitem(connections.settings["default"], "OPTIONS", {"timeout": 20})
    connection.ensure_connection()
    monkeypatch.setattr(connections["default"], "transaction_mode", None, raising=False)


FUNCTIONS: dict[str, Callable[[list[TaskExecutionTry]], Any]] = {
    "claim": lambda tries: claim([request(tries[0])]),
    "settle": lambda tries: settle([says(claimed, Success(1)) for claimed in lease(tries[0])]),
    "renew": lambda tries: renew([Heartbeat()]),
    "enqueue": lambda tries: enqueue(),
    "cancel": lambda tries: cancel([tries[0].task_execution_id]),
    "take_due": lambda tries: take_due(10, now=timezone.now() + timedelta(hours=1)),
    "expire_leases": lambda tries: expire_leases(10, clock=SYSTEM_CLOCK),
    "expire_groups": lambda tries: expire_groups(10),
}


@pytest.mark.usefixtures("by_default")
@pytest.mark.parametrize("name", FUNCTIONS)
def test_nothing_is_written_between_our_first_look_and_our_commit(name: str) -> None:
    tries = enqueue(3)
    stranger = connection.copy()
    stranger.settings_dict["OPTIONS"] = {"timeout": 0}
    looks: list[bool] = []

    def try_to_write(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        answer = execute(sql, params, many, context)
        if connection.in_atomic_block and sql.startswith(("SELECT", "UPDATE", "INSERT")):
            try:
                with stranger.cursor() as cursor:
                    cursor.execute("UPDATE i3tasks_taskgroup SET total_count = total_count WHERE id = -1")
                looks.append(True)
            except OperationalError:
                looks.append(False)
        return answer

    try:
        with connection.execute_wrapper(try_to_write):
            FUNCTIONS[name](tries)
    finally:
        stranger.close()
    assert not any(looks)


@pytest.mark.usefixtures("by_default")
def test_threads_that_read_first_and_write_later_wait_for_each_other() -> None:
    def work() -> int:
        done = 0
        for _ in range(10):
            answers = claim([request(task_try) for task_try in enqueue(3)])
            won = [answer for answer in answers if isinstance(answer, Claimed)]
            settle([says(claimed, Success(1)) for claimed in won])
            cancel([claimed.execution_id for claimed in won])
            done += len(won)
        return done

    assert in_threads([work] * 4) == [30] * 4
    assert TaskExecutionTry.objects.filter(is_success=True).count() == 120


class Undone(Exception):
    pass


@pytest.mark.parametrize("mode", [None, "IMMEDIATE"])
def test_a_caller_that_reads_on_while_others_write_may_enqueue(
    mode: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection.ensure_connection()
    monkeypatch.setattr(connections["default"], "transaction_mode", mode, raising=False)
    for number in range(6):
        Order.objects.create(name=f"order {number}")
    committed: list[int] = []
    reading = connections["default"]

    for order in Order.objects.order_by("pk").iterator(chunk_size=2):
        in_threads([partial(Order.objects.filter(pk=order.pk).update, total=order.pk)])
        with atomic():
            enqueue()
            transaction.on_commit(partial(committed.append, order.pk))
        with suppress(Undone), atomic():
            enqueue()
            raise Undone

    assert connections["default"] is reading
    assert len(committed) == TaskExecutionTry.objects.count() == 6
