"""The admin shows every row, changes none, and asks as few questions of a long table as of a short one."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.contrib import admin
from django.contrib.auth.models import Permission
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from i3tasks import admin as ours
from i3tasks.models import TaskExecution, TaskExecutionResult, TaskExecutionTry, TaskGroup, TaskKey
from tests.shop.tasks import add, fail
from tests.support.history import a_try, ago, execution, finished
from tests.support.rigs import NotingPublisher

pytestmark = pytest.mark.django_db

MODELS = [TaskExecution, TaskExecutionTry, TaskExecutionResult, TaskGroup, TaskKey]


def listed(model: Any, **query: Any) -> str:
    return reverse(f"admin:i3tasks_{model._meta.model_name}_changelist", query=query or None)


def page(row: Any) -> str:
    return reverse(f"admin:i3tasks_{row._meta.model_name}_change", args=[row.pk])


def some_rows() -> None:
    """One more of everything."""
    group = TaskGroup.objects.create(total_count=1, callback_task_path="shop.tasks", callback_task_name="done")
    row = finished("success", ago(minutes=1), task_group=group)
    finished("failed", ago(minutes=1), previous=row)
    TaskKey.objects.create(key=str(row.uuid), token=row.uuid, task_execution=row)


def keys(response: Any) -> set[int]:
    return {row.pk for row in response.context["cl"].result_list}


@pytest.mark.parametrize("model", MODELS)
def test_lists_and_pages_open_and_are_read_only(admin_client: Client, model: Any) -> None:
    some_rows()
    row = model.objects.latest("pk")

    assert admin_client.get(listed(model)).status_code == 200
    response = admin_client.get(page(row))
    assert response.status_code == 200
    assert not response.context["has_change_permission"]
    assert b'name="_save"' not in response.content

    assert admin_client.get(reverse(f"admin:i3tasks_{model._meta.model_name}_add")).status_code == 403
    assert admin_client.post(page(row), {}).status_code == 403
    assert (
        admin_client.post(reverse(f"admin:i3tasks_{model._meta.model_name}_delete", args=[row.pk])).status_code == 403
    )
    assert (
        admin_client.post(listed(model), {"action": "delete_selected", "_selected_action": row.pk}).status_code != 500
    )
    assert model.objects.filter(pk=row.pk).exists()


def queries(client: Client, url: str) -> int:
    with CaptureQueriesContext(connection) as captured:
        assert client.get(url).status_code == 200
    return len(captured)


@pytest.mark.parametrize("model", MODELS)
def test_a_long_list_takes_no_more_queries(admin_client: Client, model: Any) -> None:
    some_rows()
    few = queries(admin_client, listed(model))
    for _ in range(5):
        some_rows()

    assert queries(admin_client, listed(model)) == few <= 6


@pytest.mark.parametrize("model", [TaskExecution, TaskExecutionTry, TaskExecutionResult, TaskKey])
def test_lists_read_no_arguments_and_no_tracebacks(admin_client: Client, model: Any) -> None:
    some_rows()
    with CaptureQueriesContext(connection) as captured:
        admin_client.get(listed(model))

    read = " ".join(query["sql"] for query in captured.captured_queries)
    assert not [column for column in ("task_args", "task_kwargs", "chain", "error_traceback") if f'."{column}"' in read]


def test_an_execution_with_many_tries_takes_no_more_queries(admin_client: Client) -> None:
    row = execution()
    a_try("failed", of=row, result="no")
    few = queries(admin_client, page(row))
    for number in range(2, 8):
        a_try("failed", of=row, try_number=number, result="no")

    assert queries(admin_client, page(row)) == few


def test_an_executions_page_shows_its_tries_and_results(admin_client: Client) -> None:
    with pytest.raises(ValueError, match="out of paper"):
        fail.sync_run("out of paper")
    task_try = TaskExecutionTry.objects.get()

    html = admin_client.get(page(task_try.task_execution)).content.decode()
    assert "ValueError: &quot;out of paper&quot;" in html
    assert page(task_try) in html

    html = admin_client.get(page(task_try)).content.decode()
    assert "raise ValueError(message)" in html
    assert "out of paper" in html
    assert page(task_try.task_execution) in html


def test_states_are_told_apart(admin_client: Client, sent: NotingPublisher) -> None:
    rows = {
        "success": finished("success", ago()),
        "cancelled": finished("cancelled", ago()),
        "running": a_try("running").task_execution,
        "pending": a_try("pending").task_execution,
        "deferred": add.using(run_after=timedelta(hours=1)).delay(1, 2).task_execution,
        "failed": a_try("old failed").task_execution,
        "unknown": execution(),
    }
    table = admin.site.get_model_admin(TaskExecution)

    result = admin_client.get(listed(TaskExecution)).context["cl"].result_list

    assert {table.state(row) for row in result} == {*rows}  # type: ignore[attr-defined]
    assert {state: table.state(next(r for r in result if r.pk == row.pk)) for state, row in rows.items()} == {  # type: ignore[attr-defined, union-attr]
        state: state for state in rows
    }


@pytest.mark.parametrize(
    "term",
    [
        lambda row: str(row.uuid),
        lambda row: row.uuid.hex,
        lambda row: str(row.pk),
        lambda row: "send_letter",
        lambda row: "app.tasks.send_letter",
        lambda row: "  send_letter ",
    ],
)
def test_the_search_takes_ids_uuids_and_names(admin_client: Client, term: Callable[[Any], str]) -> None:
    wanted = execution(name="app.tasks.send_letter")
    execution()

    assert keys(admin_client.get(listed(TaskExecution, q=term(wanted)))) == {wanted.pk}


@pytest.mark.parametrize("term", ["nobody", "9" * 30, "app.tasks.", "%", "'"])
def test_a_search_that_finds_nothing(admin_client: Client, term: str) -> None:
    execution()

    assert keys(admin_client.get(listed(TaskExecution, q=term))) == set()


def test_filters(admin_client: Client) -> None:
    rows = {
        "success": finished("success", ago(), queue_name="heavy"),
        "failed": finished("failed", ago(), queue_name="default"),
        "cancelled": finished("cancelled", ago()),
        "unfinished": a_try("running").task_execution,
    }
    a_try("old failed", of=execution(queue_name="push"))
    for outcome, row in rows.items():
        assert keys(admin_client.get(listed(TaskExecution, outcome=outcome))) == {row.pk}, outcome
    assert keys(admin_client.get(listed(TaskExecution, queue="heavy"))) == {rows["success"].pk}
    default = {rows[name].pk for name in ("failed", "cancelled", "unfinished")}
    assert keys(admin_client.get(listed(TaskExecution, queue="default"))) == default

    pending = a_try("pending")
    states = {"pending": {"pending": 1}, "running": {"running": 1}, "success": {"success": 1}, "failed": {"failed": 2}}
    for state, expected in states.items():
        shown = admin_client.get(listed(TaskExecutionTry, state=state)).context["cl"].result_list
        assert len(shown) == expected[state], state
    assert keys(admin_client.get(listed(TaskExecutionTry, state="pending"))) == {pending.pk}


def test_a_groups_members_are_a_link_away(admin_client: Client) -> None:
    some_rows()
    member = TaskExecution.objects.get(task_group__isnull=False)

    html = admin_client.get(listed(TaskGroup)).content.decode()

    url = f"{listed(TaskExecution)}?task_group__id__exact={member.task_group_id}"
    assert url in html
    assert keys(admin_client.get(url)) == {member.pk}


def test_no_page_counts_a_whole_table(admin_client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ours, "MOST_ROWS", 3)
    for _ in range(5):
        finished("success", ago())

    with CaptureQueriesContext(connection) as captured:
        response = admin_client.get(listed(TaskExecution))

    assert response.context["cl"].result_count == 3
    counts = [query["sql"] for query in captured.captured_queries if "COUNT(" in query["sql"]]
    assert counts
    assert all("LIMIT 3" in sql for sql in counts)


def act(client: Client, action: str, *handles: Any) -> str:
    data = {"action": action, "_selected_action": [handle.task_execution_id for handle in handles]}
    return client.post(listed(TaskExecution), data, follow=True).content.decode()


def test_executions_are_cancelled_and_retried_from_the_list(admin_client: Client) -> None:
    waiting, failed = add.using(run_after=3600).delay(1, 2), fail.delay("no")

    assert "Cancelled 2" in act(admin_client, "cancel_selected", waiting, failed)
    assert set(TaskExecution.objects.values_list("outcome", flat=True)) == {"cancelled"}

    assert "1 will be tried again" in act(admin_client, "retry_selected", failed)
    assert TaskExecution.objects.get(pk=failed.task_execution_id).outcome is None
    assert TaskExecutionTry.objects.filter(task_execution=failed.task_execution_id, is_completed=False).count() == 1


def test_who_may_only_look_is_offered_no_action(client: Client, django_user_model: Any) -> None:
    user = django_user_model.objects.create_user("looker", is_staff=True)
    user.user_permissions.add(Permission.objects.get(codename="view_taskexecution"))
    client.force_login(user)
    handle = add.delay(1, 2)

    act(client, "cancel_selected", handle)

    assert TaskExecution.objects.get().outcome is None
