"""The filter that command line, board and admin share: what its fields mean, what it finds, and that it stays cheap."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.utils import timezone

from i3tasks.exceptions import SearchError
from i3tasks.models import TaskExecution, TaskExecutionTry
from i3tasks.store import search as search_module
from i3tasks.store import search_indexes
from i3tasks.store.search import Count, Search, Walk, loaded
from i3tasks.store.states import LOST_CLASS, State, state_of, telling_of
from tests.shop.isolated import charge
from tests.store.helpers import ADD, enqueue, plans
from tests.support.history import a_try, ago, execution, finished

pytestmark = pytest.mark.django_db
NOW = timezone.now()
AN_INSTANT = "2026-01-01T00:00:00+00:00"


def search(**fields: Any) -> Search:
    return Search.parse(fields, NOW)


def found(**fields: Any) -> list[int]:
    return [row.pk for row in search(**fields).page(timezone.now()).rows]


def histories() -> Iterator[tuple[str, TaskExecution]]:
    """One execution in each of many conditions, with the state that it is in."""
    soon = timezone.now() + timedelta(hours=1)
    past = ago(minutes=1)
    yield "waiting", a_try("pending", past, dispatch_at=past).task_execution
    yield "waiting", a_try("pending", past, run_after=past, dispatch_at=past).task_execution
    yield "deferred", a_try("pending", past, run_after=soon, dispatch_at=soon).task_execution
    yield "running", a_try("running", past, lease_until=soon).task_execution
    yield "running", a_try("running", past).task_execution  # django-i3tasks keeps no lease
    yield "lost", a_try("running", past, lease_until=past).task_execution
    for run_after in (soon, None):
        retried = a_try("failed", past).task_execution
        a_try("pending", past, of=retried, try_number=2, run_after=run_after, dispatch_at=run_after or past)
        yield "retrying", retried
    again = a_try("failed", past).task_execution
    a_try("running", past, of=again, try_number=2, lease_until=soon)
    yield "running", again
    failed = finished("failed", past)
    a_try("failed", past, of=failed, try_number=2, error_class="shop.CardDeclined")
    yield "failed", failed
    lost = finished("failed", past)
    TaskExecutionTry.objects.filter(task_execution=lost).update(error_class=LOST_CLASS)
    yield "lost", lost
    survived = a_try(
        "failed", past, error_class=LOST_CLASS, of=finished("failed", past, try_state="failed"), try_number=2
    )
    a_try("failed", past, of=survived.task_execution, try_number=3, error_class="ValueError")
    yield "failed", survived.task_execution
    yield "cancelled", finished("cancelled", past)
    yield "succeeded", finished("success", past)
    yield "failed", finished(None, past, try_state="old failed")
    yield "succeeded", finished(None, past, try_state="success")
    twice = finished(None, past, try_state="success")
    a_try("old failed", past, of=twice, try_number=2)
    yield "succeeded", twice


def test_a_state_finds_what_is_in_it_and_a_loaded_row_says_the_same() -> None:
    expected: dict[str, set[int]] = {state: set() for state in State.values}
    for state, row in histories():
        expected[state].add(row.pk)
    now = timezone.now()
    # LOST is part of two others.
    finals = {pk for pk in expected["lost"] if TaskExecution.objects.get(pk=pk).outcome}
    wanted = {
        **expected,
        "failed": expected["failed"] | finals,
        "running": expected["running"] | expected["lost"] - finals,
    }

    for state in State:
        assert set(found(state=state)) == wanted[state], state
        assert set(TaskExecution.objects.filter(state.condition(now)).values_list("pk", flat=True)) == wanted[state]
    said: dict[str, set[int]] = {state: set() for state in State.values}
    for row in search().page(now).rows:
        state = state_of(row, row.latest[0], now)
        assert state is state_of(row, telling_of(list(row.tries.all())), now)
        said[state or ""].add(row.pk)
    assert said == expected


def test_several_states_find_the_executions_of_each_once() -> None:
    rows = [row.pk for state, row in histories() if state not in ("succeeded", "cancelled")]

    pages = found(state=["running,waiting", "failed lost deferred retrying"])

    assert sorted(pages) == sorted(rows)


def test_an_error_of_any_try_finds_its_execution_once() -> None:
    at = ago(minutes=1)
    failed = finished("failed", at, try_state="failed")
    for number, error in enumerate(["E1", "E2", "E1", "E2"], 2):
        a_try("failed", at + timedelta(seconds=number), of=failed, try_number=number, error_class=error)
    others = [finished("failed", at - timedelta(seconds=second)).pk for second in range(3)]
    TaskExecutionTry.objects.filter(task_execution__in=others[:2]).update(error_class="shop.E1")
    assert found(error="E2") == [failed.pk]
    assert found(error="E1") == [failed.pk, *others[:2]]
    first = search(error="E1").page(timezone.now(), limit=1)
    rest = search(error="E1").page(timezone.now(), limit=9, after=first.following)
    assert [row.pk for page in (first, rest) for row in page.rows] == [failed.pk, *others[:2]]


def test_min_tries_counts_the_tries_that_have_begun() -> None:
    past = ago(minutes=1)
    new, once, twice, running = (execution(past) for _ in range(4))
    a_try("pending", past, of=new)
    for row, states in (
        (once, ("failed", "pending")),
        (twice, ("old failed", "failed", "pending")),
        (running, ("failed", "failed", "running")),
    ):
        for number, state in enumerate(states, 1):
            a_try(state, past, of=row, try_number=number)

    assert set(found(min_tries="1")) == {once.pk, twice.pk, running.pk}
    assert set(found(min_tries="2")) == {twice.pk, running.pk}
    assert set(found(min_tries="2", state="retrying")) == {twice.pk}
    assert set(found(min_tries="3")) == {running.pk}
    assert found(min_tries=str(2**63 - 1)) == []


def test_fields_narrow_down_what_is_found() -> None:
    past = ago(minutes=1)
    mail = a_try(
        "pending", past, of=execution(past, queue_name="mail", task_args=['Ünïcode "x"', 12345])
    ).task_execution
    other = a_try("pending", ago(days=3), name="app.tasks.clean").task_execution
    failed = finished("failed", ago(hours=3))
    TaskExecutionTry.objects.filter(task_execution=failed).update(error_class="shop.errors.CardDeclined")
    assert set(found()) == {mail.pk, other.pk, failed.pk}
    assert found(task="app.tasks.clean") == found(task="clean") == [other.pk]
    assert found(task="shop.clean") == []
    assert found(queue="mail") == [mail.pk]
    assert found(queue="default") == [failed.pk, other.pk]
    assert found(asked="2h") == [mail.pk]
    assert found(asked="4h..2h") == [failed.pk]
    assert found(asked="..1d") == [other.pk]
    assert found(finished="4h", state="failed") == found(finished="4h..2h") == [failed.pk]
    assert found(finished="2h", state="failed") == []
    assert found(error="CardDeclined") == found(error="shop.errors.CardDeclined") == [failed.pk]
    assert found(error="Declined") == found(error="errors.CardDeclined") == []
    assert found(argument='Ünïcode "x"') == found(argument="1234") == [mail.pk]
    assert found(argument="%") == found(argument="\\") == []
    task_try = mail.tries.get()
    newest_first = [other.pk, mail.pk]
    assert found(id=f"{mail.pk} {other.uuid}") == found(id=[str(other.pk), str(mail.uuid)]) == newest_first
    assert found(id=f"try:{task_try.pk}") == [mail.pk]
    assert found(id=str(uuid4())) == found(id="999999999") == found(id=str(other.pk), queue="mail") == []


def test_sensitive_arguments_can_not_be_probed() -> None:
    enqueue(1, replace(ADD, args=["s3cret"]))
    enqueue(1, replace(ADD, module_name=charge.__module__, func_name="charge", args=["s3cret"]))

    assert [row.task_name for row in search(argument="s3cret").page(NOW).rows] == ["add"]


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"state": "broken"}, "'broken' is no state. There are: waiting, running"),
        ({"asked": "2x"}, "'2x' is no time. Write an age"),
        ({"asked": "2026-02-30"}, "'2026-02-30' is no time"),
        ({"asked": "999999999w"}, "is no time"),
        ({"finished": "1h..2h"}, "ends before it begins"),
        ({"id": "twelve"}, "'twelve' is neither an id, nor a uuid"),
        ({"id": "9" * 30}, "has too many digits"),
        ({"id": " ".join(map(str, range(1001)))}, "at most 1000"),
        ({"argument": "\x00"}, "a character that no text"),
        ({"task": "x" * 501}, "at most 500 characters"),
        ({"queue": ["a", "b"]}, "Give it once"),
        ({"min_tries": "few"}, "'few' is no whole number from 1 on"),
        ({"min_tries": "0"}, "'0' is no whole number from 1 on"),
        ({"colour": "red"}, "There is no filter 'colour'. There are: state, task"),
    ],
)
def test_a_field_that_can_not_be_read_says_so_and_names_itself(fields: dict[str, Any], problem: str) -> None:
    with pytest.raises(SearchError) as caught:
        Search.parse(fields, NOW)

    assert problem in str(caught.value)
    assert caught.value.field == next(iter(fields))


def test_a_time_is_an_age_a_date_or_a_time_of_day(settings: Any) -> None:
    settings.TIME_ZONE = "Europe/Berlin"
    timezone.get_default_timezone.cache_clear()
    try:
        read = [
            search(asked=text).asked
            for text in ("1d12h", "2026-11-28T14:30", "2026-11-28T14:30Z", "2026-11-27..2026-11-28")
        ]
    finally:
        settings.TIME_ZONE = "UTC"
        timezone.get_default_timezone.cache_clear()

    assert read[0].start == NOW - timedelta(hours=36)
    assert [str(window) for window in read[1:]] == [
        "2026-11-28T14:30:00+01:00..",
        "2026-11-28T14:30:00+00:00..",
        "2026-11-27T00:00:00+01:00..2026-11-29T00:00:00+01:00",
    ]


def test_a_search_as_fields_is_the_same_search_at_any_later_time() -> None:
    row = enqueue()[0]
    fields = {"state": "failed,lost", "asked": "2h..1h", "id": f"{row.task_execution_id},try:{row.pk}", "error": "E"}
    first = search(**fields, task="a.b", queue=" mail ", argument="x", finished="")

    assert Search.parse(first.as_fields(), NOW + timedelta(days=3)) == first
    assert str(search()) == "all"
    assert "state=failed,lost" in str(first)
    assert "queue=mail" in str(first)


def test_pages_follow_each_other_and_show_each_execution_once() -> None:
    rows = [finished("failed", ago(minutes=minute)) for minute in range(7)]
    for row in rows[:3]:
        a_try("failed", ago(seconds=1), of=row, try_number=2)
    rows += [a_try("failed", ago(), of=execution()).task_execution for _ in range(2)]
    TaskExecution.objects.filter(finished_at=None).update(outcome="failed", finished_at=ago(hours=1))
    wanted = search(state="failed")

    seen: list[int] = []
    after = ""
    for _ in range(5):
        page = wanted.page(timezone.now(), limit=2, after=after)
        seen += [row.pk for row in page.rows]
        after = page.following
        if not after:
            break

    assert sorted(seen) == sorted(row.pk for row in rows)
    assert page.rows
    assert not page.is_cut


@pytest.mark.parametrize(
    "place",
    ["1", "0~x~1", "0~1~x", "0~2026-01-01~3", f"0~{2**63}~1", "-1~5~5", "0~5~-5", "0~٣~1", f"0~{AN_INSTANT}~5"],
)
def test_a_place_that_an_address_garbled_is_no_crash(place: str) -> None:
    with pytest.raises(SearchError, match="place can't be read"):
        search().page(NOW, after=place)


@pytest.mark.parametrize(
    "key", ["5", "2026-01-01", "2026-01-01T00:00:00", "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59"]
)
@pytest.mark.parametrize("fields", [{"state": "failed"}, {"state": "waiting"}, {"asked": "2h"}, {"error": "X"}])
def test_a_place_in_the_order_of_time_is_an_instant_of_the_calendar(fields: dict[str, str], key: str) -> None:
    with pytest.raises(SearchError, match="place can't be read"):
        search(**fields).page(NOW, after=f"0~{key}~5")


def test_a_place_is_read_with_any_offset() -> None:
    [first, second] = [finished("failed", ago(hours=hours)) for hours in (2, 1)]
    assert second.finished_at is not None
    there = second.finished_at.astimezone(timezone.get_fixed_timezone(14 * 60)).isoformat()
    page = search(state="failed").page(NOW, after=f"0~{there}~{second.pk}")
    assert [row.pk for row in page.rows] == [first.pk]


@pytest.mark.parametrize("field", ["asked", "finished"])
@pytest.mark.parametrize(
    "text", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "..9999-12-31T23:59:59-14:00", "..9999-12-31"]
)
def test_an_instant_beyond_the_calendar_is_said_so(field: str, text: str) -> None:
    with pytest.raises(SearchError, match="is no time: ") as caught:
        search(**{field: text})
    assert caught.value.field == field


@pytest.mark.parametrize("text", ["0001-01-01T00:00:00Z", "..9999-12-31T23:59:59Z", "0001-01-02T00:00:00+14:00"])
def test_the_edges_of_the_calendar_can_be_asked_for(text: str) -> None:
    row = finished("failed", ago(hours=1))
    assert found(asked=text, finished=text) == [row.pk]


def test_counts_end_at_a_limit() -> None:
    enqueue(3)
    now = timezone.now()

    assert str(search(state="waiting").count(now, most=2)) == "2+"
    assert search(state="waiting").count(now, most=3) == Count(3)
    assert str(search().count(now, most=2)) == "2+"
    assert str(Count(10_000, is_cut=True)) == "10,000+"


def test_what_no_index_finds_is_looked_for_among_the_newest_and_the_next_page_looks_further(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(search_module, "MOST_LOOKED_AT", 4)
    rare = execution(queue_name="heavy")
    for _ in range(10):
        execution()
    wanted = search(queue="heavy")
    now = timezone.now()

    page = wanted.page(now, limit=1)
    assert (page.rows, page.is_cut) == ([], True)
    assert wanted.count(now) == Count(1), "all fit into the first chunk that was read"
    while page.following and not page.rows:
        page = wanted.page(now, limit=1, after=page.following)
    assert [row.pk for row in page.rows] == [rare.pk]
    assert [hit.execution_id for hit in Walk(wanted, now)] == [rare.pk], "without a budget it goes all the way"


def test_rows_come_light_and_in_their_order() -> None:
    rows = enqueue(3)
    ids = [row.task_execution_id for row in rows]
    wanted = [ids[1], ids[0], 99_999, ids[2]]

    read = loaded(wanted)

    assert [row.pk for row in read] == [ids[1], ids[0], ids[2]]
    assert {"task_args", "task_kwargs", "chain"} <= read[0].get_deferred_fields()
    assert read[0].latest[0].pk == rows[1].pk


def test_lost_ones_are_looked_for_among_few_failed_ones_at_a_time() -> None:
    _, lost = finished("failed", ago(hours=2)), finished("failed", ago(hours=1))
    TaskExecutionTry.objects.filter(task_execution=lost).update(error_class=LOST_CLASS)
    both, lost_only = (
        [*search_indexes.sources(search(state=state), timezone.now())] for state in ("failed,lost", "lost")
    )
    assert [scan.most for scan in both if scan.is_own] == [search_indexes.LARGEST_CHUNK]
    assert [scan.most for scan in lost_only if scan.is_own] == [search_indexes.LARGEST_BY_TRIES]
    assert [row.pk for row in search(state="lost").page(timezone.now()).rows] == [lost.pk]


@pytest.mark.postgres
@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"state": "waiting,deferred,running"},
        {"state": "failed,lost"},
        {"state": "succeeded"},
        {"task": "no.such_task"},
        {"error": "ValueError"},
        {"finished": "2h"},
        {"argument": "nothing"},
    ],
    ids=str,
)
def test_no_statement_reads_a_whole_table(fields: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search_indexes, "LARGEST_CHUNK", 100)  # of the 5,000 rows that there are
    monkeypatch.setattr(search_module, "MOST_LOOKED_AT", 200)
    wanted = search(**fields)

    def ask() -> None:
        wanted.page(timezone.now())
        if fields:
            wanted.count(timezone.now())

    read = [plan for plan in plans(ask, deferred=50) if "Seq Scan on i3tasks_task" in plan]

    assert not read, read[0]
