"""GET tasks-status/<id or uuid>/: what became of one task, as documented."""

import io
from dataclasses import replace
from datetime import UTC, date, datetime
from typing import Any
from uuid import UUID

import pytest
from django.core.management import call_command
from django.test import AsyncClient, Client, override_settings
from django.urls import reverse

from i3tasks.models import TaskExecutionResult, TaskExecutionTry
from i3tasks.types import I3TasksSettings
from tests.shop.tasks import aadd, add, fail
from tests.support.history import a_try, execution
from tests.support.rigs import NotingPublisher

UUID_TEXT = "6f1c2e0a-0000-7000-8000-000000000001"


@pytest.fixture(autouse=True)
def values_are_shown(settings: Any) -> None:
    settings.I3TASKS = replace(settings.I3TASKS, status_shows_values=True)


@pytest.mark.django_db
def test_the_documented_example(client: Client) -> None:
    created, started, ended = (datetime(2026, 7, 9, 10, 0, second, tzinfo=UTC) for second in (0, 1, 2))
    row = execution(
        created,
        name="myapp.tasks.send_email",
        pk=42,
        uuid=UUID(UUID_TEXT),
        task_args=["user@example.com", "Hello", "World"],
    )
    type(row).objects.filter(pk=42).update(updated_at=ended)
    a_try("success", created, of=row, pk=71, started_at=started, finished_at=ended, result={"ok": True})

    by_id, by_uuid = client.get("/i3/tasks-status/42/"), client.get(f"/i3/tasks-status/{UUID_TEXT}/")

    assert by_id.status_code == by_uuid.status_code == 200
    assert by_id.json() == by_uuid.json()
    assert by_id.json() == {
        "status": "success",
        "task": {
            "id": 42,
            "uuid": UUID_TEXT,
            "task_name": "send_email",
            "task_path": "myapp.tasks",
            "task_args": ["user@example.com", "Hello", "World"],
            "task_kwargs": {},
            "task_group_id": None,
            "created_at": "2026-07-09T10:00:00+00:00",
            "updated_at": "2026-07-09T10:00:02+00:00",
        },
        "tries": [
            {
                "task_execution_try_id": 71,
                "try_number": 1,
                "asked_at": "2026-07-09T10:00:00+00:00",
                "started_at": "2026-07-09T10:00:01+00:00",
                "finished_at": "2026-07-09T10:00:02+00:00",
                "is_completed": True,
                "is_success": True,
                "result": {"ok": True},
            }
        ],
    }


@pytest.mark.django_db
@pytest.mark.parametrize("key", ["1", "00000000-0000-7000-8000-000000000000", str(2**63), "9" * 30])
def test_an_unknown_execution_is_not_found(client: Client, key: str) -> None:
    response = client.get(f"/i3/tasks-status/{key}/")

    assert (response.status_code, response.json()) == (404, {"status": "not_found"})


@pytest.mark.django_db(transaction=True)
async def test_handles_lead_to_it(async_client: AsyncClient, sent: NotingPublisher) -> None:
    handle = await aadd.adelay(1, 2)

    assert handle.task_execution_id is not None
    for url in (
        reverse("i3tasks-status", args=[handle.task_execution_id]),
        reverse("i3tasks-status-uuid", args=[handle.task_uuid]),
    ):
        body = (await async_client.get(url)).json()
        assert (body["status"], body["task"]["task_args"]) == ("pending", [1, 2])
        assert body["tries"][0]["result"] is None


@pytest.mark.django_db
def test_a_failure_shows_the_errors_text(client: Client) -> None:
    with pytest.raises(ValueError, match="broken"):
        fail.sync_run("broken")
    task_try = TaskExecutionTry.objects.get()

    body = client.get(f"/i3/tasks-status/{task_try.task_execution_id}/").json()

    assert (body["status"], body["tries"][0]["result"]) == ("failed", "broken")


@pytest.mark.django_db
def test_values_that_json_lacks_are_shown_as_text(client: Client) -> None:
    task_try = add.sync_run([date(2026, 7, 9)], [])  # type: ignore[arg-type]

    body = client.get(f"/i3/tasks-status/{task_try.task_execution_id}/").json()

    assert body["task"]["task_args"] == [["2026-07-09"], []]
    assert body["tries"][0]["result"] == ["2026-07-09"]


@pytest.mark.django_db
def test_a_result_that_is_text_only_is_shown_as_such(client: Client, admin_client: Client) -> None:
    task_try = a_try("success", result="{1: 'a'}")
    TaskExecutionResult.objects.update(text_of="dict")
    key = task_try.task_execution_id

    shown = client.get(f"/i3/tasks-status/{key}/").json()["tries"][0]
    output = io.StringIO()
    call_command("i3tasks_status", str(key), stdout=output)
    page = admin_client.get(reverse("admin:i3tasks_taskexecution_change", args=[key])).content.decode()

    assert (shown["result"], shown["result_is_text_of"]) == ("{1: 'a'}", "dict")
    assert "the text of a dict, which JSON can't hold" in output.getvalue()
    assert "the text of a dict" in page


@pytest.mark.django_db
def test_no_tries_is_unknown(client: Client) -> None:
    body = client.get(f"/i3/tasks-status/{execution().pk}/").json()

    assert (body["status"], body["tries"]) == ("unknown", [])


@pytest.mark.parametrize("method", ["post", "put", "delete", "head"])
def test_only_get(client: Client, method: str) -> None:
    assert getattr(client, method)("/i3/tasks-status/1/").status_code == 405


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("tokens", "given", "expected"),
    [
        ({}, None, 404),
        ({"health_token": "h"}, None, 401),
        ({"health_token": "h"}, "h", 404),
        ({"status_token": "s"}, "s", 404),
        ({"status_token": "s", "health_token": "h"}, "s", 404),
        ({"status_token": "s", "health_token": "h"}, "h", 401),
    ],
)
def test_its_token_falls_back_to_healths(client: Client, tokens: Any, given: str | None, expected: int) -> None:
    with override_settings(I3TASKS=I3TasksSettings(**tokens)):
        headers = {} if given is None else {"Authorization": f"Bearer {given}"}
        assert client.get("/i3/tasks-status/1/", headers=headers).status_code == expected
        assert client.get("/i3/tasks-status/1/", {"token": given} if given else {}).status_code == expected


@override_settings(I3TASKS=I3TasksSettings(status_token="s"))
def test_without_the_token_nothing_is_looked_up(client: Client) -> None:
    """Nor could it: this test may not use the database."""
    response = client.get("/i3/tasks-status/1/")

    assert (response.status_code, response.json()) == (401, {"status": "unauthorized"})


@override_settings(I3TASKS=I3TasksSettings(status_token="s"))
@pytest.mark.django_db
def test_health_stays_open_without_a_token_of_its_own(client: Client) -> None:
    assert client.get("/i3/tasks-health/").status_code == 200


@pytest.mark.django_db
@pytest.mark.parametrize("tokens", [{"status_token": "s"}, {"health_token": "s"}, {}])
def test_without_a_token_no_values_are_shown(client: Client, tokens: dict[str, str]) -> None:
    row = execution(datetime(2026, 7, 9, tzinfo=UTC), task_args=["4242 4242"], task_kwargs={"card": "4242 4242"})
    a_try("success", row.created_at, of=row, result="4242 4242")
    with override_settings(I3TASKS=I3TasksSettings(**tokens)):  # type: ignore[arg-type]
        body = client.get(f"/i3/tasks-status/{row.pk}/", headers={"Authorization": "Bearer s"}).json()
    task, task_try = body["task"], body["tries"][0]
    if tokens:
        assert (task["task_args"], task["task_kwargs"]) == (["4242 4242"], {"card": "4242 4242"})
        assert (task_try["result"], "values_hidden" in body) == ("4242 4242", False)
    else:
        assert (task["task_args"], task["task_kwargs"], task_try["result"]) == (None, None, None)
        assert (body["status"], body["values_hidden"], task["id"]) == ("success", True, row.pk)
        assert "4242" not in str(body)
