"""The list and the page of executions: every state, filter and right, and nothing that a task made is markup."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from i3tasks import RESULT, chain, group
from i3tasks.models import TaskExecution, TaskExecutionTry, TaskGroup
from i3tasks.store.states import State
from tests.shop.flows import note, total
from tests.shop.isolated import charge
from tests.shop.tasks import add
from tests.store.helpers import plans
from tests.support.history import a_try, ago, execution, finished
from tests.support.rigs import NotingPublisher

pytestmark = pytest.mark.django_db

LIST = "/i3/board/executions/"
ADMIN, ADMIN_TRIES = "/admin/i3tasks/taskexecution/", "/admin/i3tasks/taskexecutiontry/"
SCRIPT = "<script>alert(1)</script>"


def found(client: Client, **query: Any) -> list[int]:
    response = client.get(LIST, query)
    assert response.status_code == 200, response.content.decode()
    return [line.execution.pk for line in response.context["lines"]]


def one_of_each() -> dict[str, int]:
    """An execution in each state, by its state."""
    now = timezone.now()
    rows = {
        "waiting": a_try("pending", ago(seconds=9), dispatch_at=now),
        "running": a_try("running", ago(seconds=4), lease_until=now + timedelta(minutes=1), worker_id="w1"),
        "deferred": a_try("pending", run_after=now + timedelta(hours=1), dispatch_at=now + timedelta(hours=1)),
        "lost": a_try("running", ago(hours=1), lease_until=ago(minutes=30)),
    }
    retrying = execution()
    a_try("failed", ago(minutes=5), of=retrying, error_class="shop.NoStock", result="sold out")
    a_try("pending", of=retrying, try_number=2, run_after=now + timedelta(minutes=5), dispatch_at=now)
    ended = {
        "failed": finished("failed", ago(minutes=2)),
        "cancelled": finished("cancelled", ago(minutes=2)),
        "succeeded": finished("success", ago(minutes=2)),
    }
    by_state = {state: one.task_execution_id for state, one in rows.items()}
    return {**by_state, "retrying": retrying.pk, **{state: row.pk for state, row in ended.items()}}


def test_every_state_is_found_and_shown(admin_client: Client) -> None:
    ids = one_of_each()

    for state, pk in ids.items():
        assert pk in found(admin_client, state=state), state
        text = admin_client.get(f"{LIST}{pk}/").content.decode()
        assert f'<span class="state state-{state}">{state}</span>' in text, state
    assert set(found(admin_client)) == set(ids.values())


def test_the_list_tells_error_wait_and_next_try(admin_client: Client) -> None:
    pk = one_of_each()["retrying"]

    [line] = admin_client.get(LIST, {"id": pk}).context["lines"]

    assert (line.state, line.error_class, line.error, line.tries) == ("retrying", "shop.NoStock", "sold out", 2)
    assert line.next_at is not None
    assert line.wait is None, "it is not due yet"


def test_what_is_to_be_cancelled_says_so(admin_client: Client) -> None:
    row = a_try("running", ago(seconds=4), lease_until=timezone.now() + timedelta(minutes=1)).task_execution
    TaskExecution.objects.update(cancel_requested_at=timezone.now())

    text = admin_client.get(f"{LIST}{row.pk}/").content.decode()

    assert ">cancelling</span>" in text
    assert "state-cancelling" in admin_client.get(LIST).content.decode()


def test_the_address_keeps_the_filter(admin_client: Client) -> None:
    for _ in range(60):
        finished("failed", ago(minutes=2), name="shop.tasks.pay", queue_name="heavy")
    query = {"state": "failed", "task": "shop.tasks.pay", "queue": "heavy"}

    response = admin_client.get(LIST, query)
    text = response.content.decode()

    assert len(response.context["lines"]) == 50
    assert 'name="task" value="shop.tasks.pay"' in text
    assert response.context["following"].startswith(f"{LIST}?state=failed&task=shop.tasks.pay&queue=heavy&after=")
    assert len(admin_client.get(response.context["following"]).context["lines"]) == 10
    assert str(response.context["count"]) == "60"


@pytest.mark.parametrize(
    "query",
    [{"state": "odd"}, {"asked": "yesterday"}, {"id": "x"}, {"after": "1~x~2"}, {"task": "\x00"}, {"asked": "1h..2h"}],
)
def test_a_filter_that_cannot_be_read_is_a_sentence(admin_client: Client, query: dict[str, str]) -> None:
    response = admin_client.get(LIST, query)

    assert response.status_code == 400
    assert 'role="alert"' in response.content.decode()
    assert response.context["lines"] == []


def test_only_who_may_see_arguments_sees_them_and_searches_for_them(
    staff: Callable[..., Client], admin_client: Client
) -> None:
    travels = {"traceparent": f"00-{'a' * 32}-{'b' * 16}-01", "context": {"customer": "4711-secret"}}
    row = execution(task_args=["4711-secret"], name="tests.shop.tasks.add", trace_context=travels)
    a_try("failed", of=row, error_class="shop.E", result="no 4711-secret", error_traceback="at 4711-secret")
    client = staff("view_board")

    pages = [client.get(LIST), client.get(f"{LIST}{row.pk}/")]

    assert all(page.status_code == 200 and b"4711" not in page.content for page in pages)
    assert all(b"shop.E" in page.content for page in pages)
    assert client.get(LIST, {"argument": "4711"}).status_code == 400
    assert b'name="argument"' not in pages[0].content
    assert f'<dd class="mono">{"a" * 32}</dd>' in pages[1].content.decode()
    assert "customer" not in pages[1].content.decode()
    assert b"<dt>customer</dt>" in admin_client.get(f"{LIST}{row.pk}/").content


def test_sensitive_arguments_stay_hidden_from_everybody(admin_client: Client) -> None:
    row = execution(task_args=[1, "4711-secret"], name=charge.spec.path)
    a_try("pending", of=row)
    assert charge.spec.options.sensitive
    text = admin_client.get(f"{LIST}{row.pk}/").content.decode()

    assert "4711" not in text
    assert "[hidden]" in text


def test_nothing_that_a_task_made_is_markup(admin_client: Client) -> None:
    row = execution(
        task_args=[SCRIPT], task_kwargs={SCRIPT: SCRIPT}, name=f"{SCRIPT}.{SCRIPT}", queue_name=SCRIPT[:100],
        trace_context={"traceparent": f"00-{SCRIPT}-1-1", "context": {SCRIPT: SCRIPT}}, options={SCRIPT: 1},
        chain=[{"module_name": "m", "func_name": SCRIPT, "args": [], "kwargs": {}}],
    )  # fmt: skip
    texts = {"error_class": SCRIPT, "error_traceback": SCRIPT, "worker_id": SCRIPT}
    a_try("failed", of=row, result=SCRIPT, **texts)
    a_try("pending", of=row, try_number=2)
    opened = TaskGroup.objects.create(total_count=1, previous=row, callback_task_name=SCRIPT, callback_task_path=SCRIPT)
    a_try("pending", of=execution(task_group=opened, name=f"m.{SCRIPT}"))

    for address in (
        LIST,
        f"{LIST}?task={SCRIPT}",
        f"{LIST}{row.pk}/",
        "/i3/board/",
        f"/i3/board/act/?act=cancel&id={row.pk}",
    ):
        text = admin_client.get(address).content.decode()
        assert "<script>" not in text, address
    assert "&lt;script&gt;" in admin_client.get(f"{LIST}{row.pk}/").content.decode()


def test_a_chain_and_its_groups_are_linked_both_ways(admin_client: Client, sent: NotingPublisher) -> None:
    handle = chain(add.s(1, 2), group(note.s("a"), note.s("b")).then(total.s(RESULT)), note.s("end")).delay()
    first = TaskExecution.objects.order_by("pk").first()
    assert first is not None
    assert handle is not None
    text = admin_client.get(f"{LIST}{first.pk}/").content.decode()
    assert "group of 2" in text
    assert "to come" in text

    opened = TaskGroup.objects.create(total_count=2, completed_count=1, previous=first)
    TaskExecution.objects.filter(pk=first.pk).update(chain=None, outcome="success")
    members = [execution(task_group=opened, name=f"m.part{number}") for number in range(2)]
    callback = execution(previous_group=opened, name="m.after")

    forwards = admin_client.get(f"{LIST}{first.pk}/").content.decode()
    for row in (*members, callback):
        assert f'href="{LIST}{row.pk}/"' in forwards
        assert f'href="{LIST}{first.pk}/"' in admin_client.get(f"{LIST}{row.pk}/").content.decode()
    assert "1 of 2" in forwards


def test_the_timeline_tells_each_moment(admin_client: Client) -> None:
    now = timezone.now()
    row = execution()
    task_try = a_try("failed", now - timedelta(seconds=60), of=row, worker_id="w7", publish_count=1, error_class="a.B")
    TaskExecutionTry.objects.filter(pk=task_try.pk).update(
        started_at=now - timedelta(seconds=50), finished_at=now - timedelta(seconds=45)
    )
    a_try("pending", now, of=row, try_number=2, run_after=now + timedelta(minutes=9), dispatch_at=now)

    response = admin_client.get(f"{LIST}{row.pk}/")

    second, first = response.context["attempts"]
    assert [moment.word for moment in first.moments] == ["asked for", "published", "begun", "ended"]
    assert [moment.after and moment.after.total_seconds() for moment in first.moments] == [None, None, 10, 5]
    assert (first.wait.total_seconds(), first.duration.total_seconds()) == (10, 5)
    assert second.state == "deferred"
    assert b"by w7" in response.content


@pytest.mark.parametrize(
    ("at", "zone"),
    [(datetime.max.replace(tzinfo=UTC), "Asia/Tokyo"), (datetime.min.replace(tzinfo=UTC), "America/New_York")],
    ids=["last", "first"],
)
def test_the_edges_of_the_calendar_are_shown_in_every_time_zone(admin_client: Client, at: datetime, zone: str) -> None:
    task_try = a_try("pending", run_after=at, dispatch_at=at)
    one = f"{task_try.task_execution_id}/"
    with timezone.override(zone):
        for page in (LIST, f"{LIST}{one}", ADMIN, f"{ADMIN}{one}change/", f"{ADMIN_TRIES}{task_try.pk}/change/"):
            response = admin_client.get(page)
            assert response.status_code == 200
            if page == f"{LIST}{one}":
                assert f'<time datetime="{at.isoformat()}">' in response.content.decode()


def test_an_execution_that_is_not_there_is_a_404(admin_client: Client) -> None:
    assert admin_client.get(f"{LIST}987654/").status_code == 404


def test_a_long_list_takes_no_more_queries(admin_client: Client) -> None:
    def queries() -> int:
        with CaptureQueriesContext(connection) as captured:
            assert admin_client.get(LIST).status_code == 200
        return len(captured)

    one_of_each()
    few = queries()
    for _ in range(4):
        one_of_each()

    assert queries() == few


@pytest.mark.postgres
def test_the_indexes_serve(admin_client: Client) -> None:
    """No page reads all tries or all executions there are."""
    row = a_try("pending", ago(seconds=90), dispatch_at=ago()).task_execution
    lists = [f"{LIST}?state={state}" for state in State if state is not State.SUCCEEDED]

    def read() -> None:
        for address in ("/i3/board/", f"{LIST}?task=add&asked=1h", *lists, f"{LIST}{row.pk}/"):
            assert admin_client.get(address).status_code == 200

    found = plans(read, deferred=50)
    assert len([plan for plan in found if "i3tasks_taskexecutiontry" in plan]) > 20
    large = ("Seq Scan on i3tasks_taskexecution ", "Seq Scan on i3tasks_taskexecutiontry ")
    assert not [plan for plan in found if any(scan in plan for scan in large)]
