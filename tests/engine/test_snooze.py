"""A body that raises Snooze: the same try runs again later, and no retry is used up."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from i3tasks import Snooze, TaskMetadata, task
from i3tasks.engine import inline
from i3tasks.exceptions import I3TasksError
from i3tasks.models import TaskExecution, TaskExecutionTry
from i3tasks.testing import advance, drain

pytestmark = pytest.mark.django_db

MINUTE = timedelta(minutes=1)
runs: list[int] = []


@pytest.fixture(autouse=True)
def no_runs() -> None:
    runs.clear()


@task(bind=True, max_retries=0)
def doze(times: int, task_metadata: TaskMetadata | None = None) -> str:
    assert task_metadata is not None
    runs.append(task_metadata.try_number)
    if len(runs) <= times:
        raise Snooze(MINUTE)
    return "awake"


@task(max_retries=0)
async def adoze() -> None:
    raise Snooze(-5, "not yet")


def test_the_same_try_runs_again_when_its_time_has_come() -> None:
    handle = doze.delay(2)
    assert drain(raise_errors=True) == [handle.task_execution_try]
    task_try = TaskExecutionTry.objects.get()
    assert (task_try.started_at, task_try.lease_until, task_try.claim_token) == (None, None, None)
    assert task_try.run_after == task_try.dispatch_at
    assert drain() == []
    for _ in range(2):
        advance(MINUTE)
        drain()
    assert runs == [1, 1, 1]
    assert handle.result() == "awake"
    assert TaskExecutionTry.objects.count() == 1


def test_without_a_delay_it_runs_again_at_once() -> None:
    adoze.delay()
    with pytest.raises(I3TasksError, match="has run 5 tries"):
        drain(most=5)
    assert TaskExecutionTry.objects.count() == 1


def test_a_snoozing_call_can_be_cancelled() -> None:
    handle = doze.delay(9)
    drain()
    handle.cancel()
    advance(MINUTE)
    assert drain() == []
    assert TaskExecution.objects.get().outcome == "cancelled"


def test_in_place_the_caller_is_told_and_the_call_waits() -> None:
    with pytest.raises(Snooze, match="again in 60 s"):
        doze.sync_run(9)
    assert TaskExecutionTry.objects.get().run_after is not None


def test_force_sync_runs_it_again_without_the_delay_and_not_for_ever(
    settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inline, "MOST_SNOOZES", 5)
    settings.I3TASKS = replace(settings.I3TASKS, force_sync=True)
    assert doze.delay(3).result() == "awake"
    with pytest.raises(I3TasksError, match="has raised Snooze 6 times"):
        adoze.delay()
