"""The admin shows every row, changes none, and asks as few questions of a long table as of a short one."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import Permission
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from i3tasks import RESULT, chain, group
from i3tasks.admin import base as ours
from i3tasks.engine import bulk as engine_bulk
from i3tasks.models import TaskExecution, TaskExecutionResult, TaskExecutionTry, TaskGroup, TaskKey
from i3tasks.store.cancel import cancel
from i3tasks.store.states import LOST_CLASS
from tests.shop.flows import double, mourn, note
from tests.shop.tasks import add, fail
from tests.store.helpers import open_transaction
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
    queries(admin_client, page(row))  # Django keeps what the first page has looked up for all the others
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


def test_states_are_told_apart_and_the_filter_agrees(admin_client: Client, sent: NotingPublisher) -> None:
    retried = a_try("failed").task_execution
    a_try("pending", of=retried, try_number=2)
    lost = finished("failed", ago())
    TaskExecutionTry.objects.filter(task_execution=lost).update(error_class=LOST_CLASS)
    rows = {
        "succeeded": finished("success", ago()),
        "cancelled": finished("cancelled", ago()),
        "running": a_try("running").task_execution,
        "waiting": a_try("pending").task_execution,
        "deferred": add.using(run_after=timedelta(hours=1)).delay(1, 2).task_execution,
        "failed": a_try("old failed").task_execution,
        "retrying": retried,
        "lost": lost,
        "unknown": execution(),
    }

    result = admin_client.get(listed(TaskExecution)).context["cl"].result_list

    assert {row.pk: row.line.state for row in result} == {row.pk: state for state, row in rows.items()}
    for state, row in rows.items():
        if state != "unknown":
            also = {lost.pk} if state == "failed" else set()
            assert keys(admin_client.get(listed(TaskExecution, state=state))) == {row.pk} | also, state


def test_the_list_shows_error_wait_and_duration(admin_client: Client) -> None:
    row = finished("failed", ago(minutes=2))
    began = ago(seconds=90)
    times = {"asked_at": ago(seconds=100), "started_at": began, "finished_at": began + timedelta(seconds=61)}
    TaskExecutionTry.objects.filter(task_execution=row).update(error_class="shop.CardDeclined", **times)

    html = admin_client.get(listed(TaskExecution, state="failed", asked="1h", q="send_email")).content.decode()

    assert "CardDeclined: x" in html
    assert "10 s" in html
    assert "1 min 1 s" in html


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
    heavy = finished("success", ago(), queue_name="heavy")
    named = finished("failed", ago(days=2), queue_name="default")
    a_try("old failed", of=execution(queue_name="push"))
    unnamed = a_try("running").task_execution
    assert keys(admin_client.get(listed(TaskExecution, queue="heavy"))) == {heavy.pk}
    assert keys(admin_client.get(listed(TaskExecution, queue="default"))) == {named.pk, unnamed.pk}
    assert keys(admin_client.get(listed(TaskExecution, queue="default", asked="1d"))) == {unnamed.pk}
    assert keys(admin_client.get(listed(TaskExecution, queue="default", q=str(named.uuid)))) == {named.pk}

    pending = a_try("pending")
    states = {"pending": 1, "running": 1, "success": 1, "failed": 2}
    for state, expected in states.items():
        shown = admin_client.get(listed(TaskExecutionTry, state=state)).context["cl"].result_list
        assert len(shown) == expected, state
    assert keys(admin_client.get(listed(TaskExecutionTry, state="pending"))) == {pending.pk}


def test_pages_of_what_a_filter_finds(admin_client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [finished("failed", ago(minutes=minute)) for minute in range(5)]
    together = admin_client.get(listed(TaskExecution, state="failed")).context["cl"].result_list
    assert [row.pk for row in together] == [row.pk for row in rows], "a single page is found by the search, too"
    monkeypatch.setattr("i3tasks.admin.base.ReadOnly.list_per_page", 2)

    pages = [admin_client.get(listed(TaskExecution, state="failed", p=number)) for number in (1, 2, 3)]

    assert [row.pk for page in pages for row in page.context["cl"].result_list] == [row.pk for row in rows]
    assert pages[0].context["cl"].result_count == 5


def test_what_was_not_found_among_the_newest_is_told(admin_client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("i3tasks.store.search.MOST_LOOKED_AT", 2)
    monkeypatch.setattr("i3tasks.store.search_indexes.LARGEST_CHUNK", 2)
    for _ in range(5):
        execution()

    html = admin_client.get(listed(TaskExecution, queue="heavy")).content.decode()

    assert "None is among the newest" in html


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


def test_one_is_cancelled_and_retried_from_its_page(admin_client: Client) -> None:
    handle = add.using(run_after=3600).delay(1, 2)
    row = TaskExecution.objects.get(pk=handle.task_execution_id)
    url = reverse("admin:i3tasks_taskexecution_act", args=[row.pk])
    html = admin_client.get(page(row)).content.decode()
    assert url in html
    assert admin_client.get(url).status_code == 405

    assert "Cancelled 1" in admin_client.post(url, {"act": "cancel"}, follow=True).content.decode()
    row.refresh_from_db()
    assert row.outcome == "cancelled"
    assert "1 will be tried again" in admin_client.post(url, {"act": "retry"}, follow=True).content.decode()
    row.refresh_from_db()
    assert row.outcome is None
    assert admin_client.post(url, {"act": "delete"}).status_code == 403


def test_who_may_only_look_has_no_buttons(client: Client, django_user_model: Any) -> None:
    user = django_user_model.objects.create_user("looker", is_staff=True)
    user.user_permissions.add(Permission.objects.get(codename="view_taskexecution"))
    client.force_login(user)
    row = TaskExecution.objects.get(pk=add.delay(1, 2).task_execution_id)
    url = reverse("admin:i3tasks_taskexecution_act", args=[row.pk])

    assert url not in client.get(page(row)).content.decode()
    assert client.post(url, {"act": "cancel"}).status_code == 403
    row.refresh_from_db()
    assert row.outcome is None


def test_a_page_shows_calls_as_calls_tracebacks_in_place_and_folds_what_is_empty(admin_client: Client) -> None:
    chain(double.s(1), double.s(RESULT)).otherwise(mourn.s(name="x")).delay()
    row = TaskExecution.objects.get()
    task_try = TaskExecutionTry.objects.get()
    TaskExecutionTry.objects.update(error_class="ValueError", error_traceback="Traceback: <b>here</b>")

    html = admin_client.get(page(row)).content.decode()

    assert "tests.shop.flows.double(1)" in html
    assert "tests.shop.flows.double(&#x27;RESULT&#x27;)" in html
    assert "<pre>Traceback: &lt;b&gt;here&lt;/b&gt;</pre>" in html
    assert "__i3" not in html
    shown, empty = html.split("collapse")[0], html.split("collapse")[1]
    assert "field-outcome" not in shown
    assert "field-outcome" in empty
    assert f"{task_try.asked_at:%H:%M:%S}" in html, "with seconds"
    assert "Task execution tries" in admin_client.get(reverse("admin:index")).content.decode()


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


def test_all_that_are_selected_are_acted_on_in_slices(admin_client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("i3tasks.engine.bulk.SLICE", 2)
    handles = [add.using(run_after=3600).delay(1, 2) for _ in range(5)]
    cancel([handles[0].task_execution_id])
    sizes: list[int] = []
    slices = engine_bulk.slices

    def noting(*args: Any, **kwargs: Any) -> Any:
        for made in slices(*args, **kwargs):
            sizes.append(len(made.done) + made.skipped.total())
            yield made

    monkeypatch.setattr(engine_bulk, "slices", noting)
    data = {"action": "cancel_selected", "_selected_action": [handles[0].task_execution_id], "select_across": 1}

    html = admin_client.post(listed(TaskExecution), data, follow=True).content.decode()

    assert "Cancelled 4. Left alone: it has ended already (1)." in html
    assert sizes == [2, 2, 1]
    assert set(TaskExecution.objects.values_list("outcome", flat=True)) == {"cancelled"}


def test_who_may_only_look_is_offered_no_action(client: Client, django_user_model: Any) -> None:
    user = django_user_model.objects.create_user("looker", is_staff=True)
    user.user_permissions.add(Permission.objects.get(codename="view_taskexecution"))
    client.force_login(user)
    handle = add.delay(1, 2)

    act(client, "cancel_selected", handle)

    assert TaskExecution.objects.get().outcome is None


@pytest.mark.postgres
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("table", ["i3tasks_taskexecution", "i3tasks_taskgroup"])
@pytest.mark.parametrize("action", ["cancel_selected", "retry_selected"])
def test_an_action_on_an_execution_that_is_held_says_so(
    admin_client: Client, sent: NotingPublisher, monkeypatch: pytest.MonkeyPatch, table: str, action: str
) -> None:
    monkeypatch.setattr("i3tasks.store.bulk.LONGEST_LOCK", timedelta(milliseconds=20))
    group(note.s("member"), note.s("other"), wait_for_all=True).delay()
    [member, _] = TaskExecutionTry.objects.order_by("pk")
    if action == "retry_selected":
        cancel([member.task_execution_id])
    before = list(TaskExecution.objects.order_by("pk").values_list("outcome", "cancel_requested_at"))
    with open_transaction(f"SELECT 1 FROM {table} FOR UPDATE"):
        assert "Nothing was changed: another transaction holds" in act(admin_client, action, member)
    assert list(TaskExecution.objects.order_by("pk").values_list("outcome", "cancel_requested_at")) == before
    assert "Nothing was changed" not in act(admin_client, action, member)
    assert list(TaskExecution.objects.order_by("pk").values_list("outcome", "cancel_requested_at")) != before
