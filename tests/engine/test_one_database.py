"""Reads go where writes go: with replicas for reading, no query of ours goes to one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.contrib.auth.models import User
from django.core.management import call_command
from django.db import OperationalError, connections
from django.test import Client, override_settings
from django.test.testcases import DatabaseOperationForbidden
from django.urls import reverse
from django.utils import timezone

from i3tasks import RESULT, chain, group, schedule_task, task
from i3tasks.engine.beat import Beat
from i3tasks.engine.dispatcher import Dispatcher
from i3tasks.models import ScheduleState, TaskExecution, TaskExecutionTry, TaskGroup, TaskKey, TaskSchedule
from i3tasks.store.health import health
from i3tasks.store.status import status
from tests.http.test_admin_answers import MODELS, listed, page
from tests.http.test_admin_schedules import FORM
from tests.shop.tasks import add, fail

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("sent")]


class Replicas:
    """Reads rows of i3tasks from a replica that can't be reached, so each such read raises."""

    def db_for_read(self, model: Any, **hints: Any) -> str | None:
        return "replica" if model._meta.app_label == "i3tasks" else None

    def db_for_write(self, model: Any, **hints: Any) -> str:
        return "default"

    def allow_relation(self, one: Any, other: Any, **hints: Any) -> bool:
        return True


@pytest.fixture(autouse=True)
def replicas() -> Iterator[None]:
    connections.settings["replica"] = {**connections.settings["default"], "NAME": "/nowhere/replica"}
    try:
        with override_settings(DATABASE_ROUTERS=[Replicas()]):
            yield
    finally:
        with suppress(AttributeError):  # not opened in this thread
            del connections["replica"]
        del connections.settings["replica"]


@task(unique=True)
def only_one(value: int) -> int:
    return value


@task(bind=True)
def its_own_row(task_metadata: Any = None) -> str:
    return str(task_metadata.task_execution.uuid)


@task(bind=True)
async def its_own_row_too(task_metadata: Any = None) -> str:
    return str((await task_metadata.aget_task_execution()).uuid)


def test_the_router_is_asked() -> None:
    with pytest.raises((OperationalError, DatabaseOperationForbidden)):
        list(TaskExecution.objects.using("replica"))


def test_calls_and_workflows() -> None:
    first, second = only_one.delay(1), only_one.delay(1)
    assert first.task_execution_id == second.task_execution_id
    for _ in range(2):
        add.using(idempotency_key="k").delay(1, 2)
    chain(add.s(1, 2), add.s(RESULT, 3)).delay()
    group([add.s(1, 2), add.s(3, 4)]).then(add.s(5, 6)).delay()
    for end in (TaskGroup.close, TaskGroup.cancel):
        end(TaskGroup.create(add.s(1, 2), total_count=2))
    first.cancel()
    assert add.sync_run(1, 2).is_success
    assert its_own_row.sync_run().is_success
    assert async_to_sync(its_own_row_too.arun)()
    with override_settings(I3TASKS=_with(force_sync=True)):
        row = add.delay(1, 2).task_execution
    row.refresh_from_db()
    assert row.outcome == "success"


def test_rows_and_what_they_refer_to() -> None:
    handle = add.using(idempotency_key="k").delay(1, 2)
    row = TaskExecution.objects.get(pk=handle.task_execution_id)
    row.refresh_from_db()
    task_try = row.tries.get()
    assert TaskExecutionTry.objects.get().task_execution == row
    assert TaskKey.objects.get().task_execution == row
    assert list(row.next_steps.all()) == []
    assert list(TaskExecution.objects.prefetch_related("tries").get().tries.all()) == [task_try]
    assert TaskExecution.objects.only("pk").get().task_name == "add", "a deferred column"


def test_loops_reports_and_commands() -> None:
    schedule_task(add, "* * * * *", name="often", args=[1, 2])
    failed = fail.using(max_retries=0).delay().task_execution
    Beat().pass_once()
    assert ScheduleState.objects.get().schedule == TaskSchedule.objects.get()
    dispatcher = Dispatcher()
    dispatcher.pass_once()
    assert dispatcher.is_well
    async_to_sync(health)(timezone.now())
    async_to_sync(status)(id=failed.pk)
    call_command("i3tasks_audit")
    call_command("i3tasks_clean", days=1)
    call_command("i3tasks_cancel", str(failed.pk))
    call_command("i3tasks_retry", str(failed.pk))
    call_command("i3tasks_status", str(failed.pk))


def test_the_admin() -> None:
    client = Client()
    client.force_login(User.objects.create_superuser("root"))
    assert client.post(reverse("admin:i3tasks_taskschedule_add"), FORM).status_code == 302
    assert client.post(reverse("admin:i3tasks_taskschedule_add"), FORM).status_code == 200, "its name is taken"
    Beat().pass_once()
    handle = add.using(run_after=timedelta(hours=1)).delay(1, 2)
    group([add.s(1, 2)]).then(add.s(5, 6)).delay()
    for model in MODELS:
        assert client.get(listed(model)).status_code == 200
    assert client.get(page("taskexecution", handle.task_execution_id)).status_code == 200
    assert client.get(page("taskexecutiontry", handle.task_execution_try.pk)).status_code == 200
    for action in ("cancel_selected", "retry_selected"):
        chosen = {"action": action, "_selected_action": [handle.task_execution_id]}
        assert client.post(listed("taskexecution"), chosen).status_code == 302
    changed = {**FORM, "cron": "@daily"}
    schedule = page("taskschedule", TaskSchedule.objects.get().pk)
    assert client.get(schedule).status_code == 200
    assert client.post(schedule, changed).status_code == 302
    assert TaskSchedule.objects.get().cron == "@daily"
    chosen = {"action": "enqueue_now", "_selected_action": [TaskSchedule.objects.get().pk]}
    assert client.post(listed("taskschedule"), chosen).status_code == 302
    for endpoint, key in (("i3tasks-health", []), ("i3tasks-status", [handle.task_execution_id])):
        assert client.get(reverse(endpoint, args=key)).status_code == 200


def _with(**changes: Any) -> Any:
    from dataclasses import replace

    from django.conf import settings

    return replace(settings.I3TASKS, **changes)
