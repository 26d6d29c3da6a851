"""A backlog that PostgreSQL's statistics do not know of yet: nothing that is asked often reads it as a whole."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from i3tasks.core.clock import current_clock
from i3tasks.core.outcome import Success
from i3tasks.models import TaskExecutionTry
from i3tasks.store import figures
from i3tasks.store.database import DATABASE_TIME, join_by_index
from i3tasks.store.delivering import Item
from i3tasks.store.dispatching import confirm_published, next_due
from i3tasks.store.fallback import WaitingRequest, take_waiting
from i3tasks.store.operations import CLAIM, CONFIRM, SETTLE, Operation
from i3tasks.store.postgres.priority import displace_held, find_higher, hold
from i3tasks.store.requests import TryRef
from i3tasks.store.writer import Writer
from tests.store.helpers import ADD, enqueue, request, says

pytestmark = [pytest.mark.postgres, pytest.mark.django_db]
BACKLOG = 3000
FEW = 10
ALL = WaitingRequest(("default",), timedelta(0), timedelta(0), FEW, FEW)
TABLES = ("i3tasks_taskexecution", "i3tasks_taskexecutiontry")


@pytest.fixture
def backlog() -> None:
    enqueue(5000)
    ended = timezone.now() - timedelta(days=30)
    TaskExecutionTry.objects.update(
        asked_at=ended, started_at=ended, finished_at=ended, dispatch_at=None, is_completed=True, is_success=True
    )
    analyze()
    confirm_published([TryRef.of(task_try) for task_try in enqueue(BACKLOG)])


@pytest.mark.parametrize(
    "look",
    [
        lambda: take_waiting([ALL]),
        lambda: next_due(timedelta(seconds=1)),
        lambda: figures.figures(timezone.now()),
    ],
    ids=["take_waiting", "next_due", "figures"],
)
@pytest.mark.usefixtures("backlog")
def test_of_a_new_backlog_only_what_comes_first_is_read(look: Callable[[], Any], monkeypatch: Any) -> None:
    monkeypatch.setattr(figures, "MOST_COUNTED", FEW)
    before = rows_read()
    assert look() != [[]]
    assert rows_read() - before < BACKLOG / 4


def test_a_large_batch_reads_its_own_rows_and_no_table() -> None:
    tries = enqueue(BACKLOG)
    before = rows_read()
    claims = ask(CLAIM, [request(task_try) for task_try in tries[: BACKLOG // 10]])
    ask(SETTLE, [says(claimed, Success(1)) for claimed in claims])
    assert rows_read() - before < BACKLOG


@pytest.mark.parametrize("count", [10, 300])
def test_tries_that_are_due_at_one_instant_are_confirmed_by_their_ids(count: int) -> None:
    """As those of a `delay_many` are, where the statistics have seen only tries with an instant of their own each."""
    enqueue(600)
    with connection.cursor() as cursor:
        cursor.execute("UPDATE i3tasks_taskexecutiontry SET dispatch_at = dispatch_at + id * interval '1 second'")
        cursor.execute(f"ANALYZE {', '.join(TABLES)}")
    refs = [TryRef.of(task_try) for task_try in enqueue(BACKLOG)]
    assert len({ref.dispatch_at for ref in refs}) == 1
    before = rows_read()
    ask(CONFIRM, refs[:count])
    assert rows_read() - before < 5 * count
    assert TaskExecutionTry.objects.filter(publish_count=1).count() == count


@pytest.mark.parametrize("count", [1, FEW, BACKLOG // 10])
@pytest.mark.usefixtures("backlog")
def test_claims_by_messages_do_not_read_the_line_to_learn_that_it_has_no_priorities(count: int) -> None:
    requests = [request(task_try, is_ticket=True) for task_try in enqueue(count, replace(ADD, queue_name="default"))]
    before = rows_read()
    assert len(ask(CLAIM, requests)) == count
    assert rows_read() - before < 20 * count + 20


@pytest.mark.parametrize("count", [FEW, BACKLOG // 10])
@pytest.mark.usefixtures("backlog")
def test_turns_are_found_and_taken_without_the_rest_of_the_line(count: int) -> None:
    """Each message is of a try of priority 0, and brings one of those of priority 1, which wait in thousands."""
    call = replace(ADD, queue_name="default")
    higher = enqueue(BACKLOG, replace(call, priority=1))
    confirm_published([TryRef.of(task_try) for task_try in higher])
    analyze()
    requests = [request(task_try, is_ticket=True) for task_try in enqueue(count, call)]
    before = rows_read()
    claims = ask(CLAIM, requests)
    assert {claimed.try_id for claimed in claims} <= {task_try.pk for task_try in higher}
    assert rows_read() - before < 20 * count


def test_turns_are_looked_up_in_tables_that_were_almost_empty_when_they_were_analyzed() -> None:
    """As `clean` leaves them: for the planner, to read all of such a table seems to cost less than to look up ids."""
    tries = enqueue(BACKLOG, replace(ADD, queue_name="default"))[-BACKLOG // 15 :]
    with connection.cursor() as cursor:
        cursor.execute("UPDATE pg_class SET reltuples = 10, relpages = 300 WHERE relname = ANY (%s)", [[*TABLES]])
    confirm_published([TryRef.of(task_try) for task_try in tries])
    ids = [task_try.pk for task_try in tries]
    looks: dict[str, Callable[[], Any]] = {
        "find_higher": lambda: find_higher(ids, timedelta(0), DATABASE_TIME),
        "hold": lambda: hold(ids, DATABASE_TIME),
        "displace": lambda: displace_held(ids, timedelta(0), DATABASE_TIME),
    }
    join_by_index(len(ids))
    read = {}
    for name, look in looks.items():
        before = rows_read()
        assert look()
        read[name] = rows_read() - before
    assert {name: count for name, count in read.items() if count > BACKLOG / 2} == {}


def test_the_planner_is_set_once_for_a_large_batch_and_never_for_a_small_one() -> None:
    for count, times in ((19, 0), (20, 1), (200, 1)):
        tries = enqueue(count)
        with CaptureQueriesContext(connection) as captured:
            ask(CLAIM, [request(task_try) for task_try in tries])
        assert sum("enable_seqscan" in query["sql"] for query in captured.captured_queries) == times


def test_sorting_is_as_before_once_that_is_read() -> None:
    enqueue()
    take_waiting([ALL])
    with connection.cursor() as cursor:
        cursor.execute("SHOW enable_sort")
        assert cursor.fetchone() == ("on",)


def test_statistics_are_made_again_after_so_many_changes_whatever_the_size_of_a_table() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT relname, reloptions FROM pg_class WHERE relname = ANY (%s)", [[*TABLES]])
        options = {table: dict(option.split("=") for option in found) for table, found in cursor.fetchall()}
    assert {table: options[table]["autovacuum_analyze_scale_factor"] for table in TABLES} == dict.fromkeys(TABLES, "0")
    assert {options[table]["autovacuum_analyze_threshold"] for table in TABLES} == {"20000"}


def analyze() -> None:
    with connection.cursor() as cursor:
        cursor.execute(f"ANALYZE {', '.join(TABLES)}")


def rows_read() -> int:
    """Rows of the tables that this transaction has read."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT sum(seq_tup_read + coalesce(idx_tup_fetch, 0)) FROM pg_stat_xact_user_tables"
            " WHERE relname = ANY (%s)",
            [[*TABLES]],
        )
        return int(cursor.fetchone()[0])


def ask(operation: Operation[Any, Any], requests: Sequence[Any]) -> list[Any]:
    """Ask as the writer's thread does, in this one."""
    answers = Writer(current_clock)._run_all([Item(operation, asked) for asked in requests], {})
    return [answer for _, answer in answers]
