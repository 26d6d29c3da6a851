"""The documented names of chains and groups, and the `a`-twin of each method that touches the database."""

import asyncio
import inspect
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.test import override_settings
from django.utils import timezone

from i3tasks import RESULT, chain, group
from i3tasks.calls.base import Task
from i3tasks.calls.canvas import Signature
from i3tasks.calls.handles import ChainHandle
from i3tasks.exceptions import ArgumentError, I3TasksError, TaskFailed
from i3tasks.models import TaskExecution, TaskExecutionTry, TaskGroup
from i3tasks.types import I3TasksSettings
from tests.shop.flows import break_down, double, mourn, note
from tests.shop.tasks import add


@pytest.mark.django_db
class TestChainHandle:
    def test_of_a_call(self) -> None:
        handle = add.delay(1, right=2)
        execution = TaskExecution.objects.get()
        assert handle.task_execution == execution
        assert handle.task_execution_id == execution.pk
        assert handle.task_uuid == execution.uuid
        assert handle.task_execution_try == TaskExecutionTry.objects.get()
        assert handle.steps == []

    def test_then_gives_the_same_handle_and_writes_the_documented_steps(self) -> None:
        handle = add.delay(1, 2)
        assert handle.then(note, "a").then(double, value=3) is handle
        steps = [
            {"module_name": "tests.shop.flows", "func_name": "note", "args": ["a"], "kwargs": {}},
            {"module_name": "tests.shop.flows", "func_name": "double", "args": [], "kwargs": {"value": 3}},
        ]
        assert handle.steps == steps
        assert TaskExecution.objects.get().chain == steps

    def test_of_build_chain(self) -> None:
        handle = note.build_chain("a").then(note, "b")
        values = (handle.task_execution_try, handle.task_execution, handle.task_execution_id, handle.task_uuid)
        assert values == (None, None, None, None)
        assert [item["args"] for item in handle.steps] == [["a"], ["b"]]
        assert not TaskExecution.objects.exists()
        for method in (handle.cancel, handle.retry, handle.result):
            with pytest.raises(I3TasksError, match="build_chain"):
                method()

    def test_what_a_step_can_not_have(self) -> None:
        handle = note.delay("a")
        with pytest.raises(ArgumentError, match="run_after"):
            handle.then(note.using(run_after=60), "b")
        with pytest.raises(ArgumentError, match="arguments already"):
            handle.then(note.s("b"), "c")
        with pytest.raises(ArgumentError, match="TaskGroup"):
            handle.then(note, "b", __i3group__="no group")
        assert TaskExecution.objects.get().chain is None


@pytest.mark.django_db
def test_a_documented_group_has_these_columns() -> None:
    made = TaskGroup.create(callback=note, total_count=2, args=["x"], kwargs={"value": 1})
    made.refresh_from_db()
    assert (made.callback_task_path, made.callback_task_name) == ("tests.shop.flows", "note")
    assert (made.callback_task_args, made.callback_task_kwargs, made.callback_chain) == (["x"], {"value": 1}, None)
    assert (made.total_count, made.completed_count, made.failed_count) == (2, 0, 0)
    assert (made.status, TaskGroup.STATUS_PENDING) == ("pending", "pending")
    assert (TaskGroup.STATUS_SUCCESS, TaskGroup.STATUS_FAILED) == ("success", "failed")
    note.delay("a", __i3group__=made)
    assert [member.task_args for member in made.members.all()] == [["a"]]  # type: ignore[attr-defined]
    with_chain = TaskGroup.create(note.build_chain("a").then(note, "b"), 1)
    assert (with_chain.callback_task_args, len(with_chain.callback_chain)) == (["a"], 1)


@pytest.fixture
def inline() -> Iterator[None]:
    with override_settings(I3TASKS=I3TasksSettings(force_sync=True)):
        yield


@pytest.mark.parametrize("owner", [ChainHandle, Signature, Task, TaskGroup, chain, group])
def test_each_method_has_its_twin(owner: Any) -> None:
    without = {
        "then",
        "using",
        "s",
        "build_chain",
        "create",
        "otherwise",
        "as_step",
        "as_steps",
        "sync_run",
        "async_run",
    }
    if owner is ChainHandle:
        without.remove("then")
    if owner is TaskGroup:
        without.remove("create")
        names = ["create", "close", "cancel"]
    else:
        names = [name for name in vars(owner) if not name.startswith("_") and inspect.isfunction(vars(owner)[name])]
    for name in set(names) - without:
        if not inspect.iscoroutinefunction(inspect.unwrap(getattr(owner, name))):
            assert inspect.iscoroutinefunction(getattr(owner, f"a{name}")), name


@pytest.mark.django_db(transaction=True)
class TestTwins:
    async def test_workflows(self, inline: None) -> None:
        async with asyncio.timeout(30):
            handle = await chain(double.s(2), double.s(RESULT)).adelay()
            assert await handle.athen(note, "end", RESULT) is handle
            assert await handle.aresult() == 8
            assert await (double.s(1) | double.s(RESULT)).adelay()
            assert await (await double.s(4).adelay()).aresult() == 8
            started = await group(double.s(1), double.s(2)).then(note.s("joined", RESULT)).adelay()
            assert started.status == "success"
        ends = [row.task_args async for row in TaskExecution.objects.filter(task_name="note").order_by("pk")]
        assert ends == [["end", 8], ["joined", [2, 4]]]

    async def test_failures(self, inline: None) -> None:
        handle = await chain(break_down.s("x")).otherwise(mourn).adelay()
        assert await TaskExecution.objects.filter(task_name="mourn").acount() == 1
        with pytest.raises(TaskFailed, match="x"):
            await handle.aresult(timeout=10)

    async def test_conditions(self, sent: Any) -> None:
        handle = await add.adelay(1, 2)
        assert await handle.areschedule(timezone.now() + timedelta(hours=1))
        await handle.acancel()
        assert (await TaskExecution.objects.aget()).outcome == "cancelled"
        assert await handle.aretry()
        shared = await TaskGroup.acreate(callback=note, total_count=3, args=["closed"])
        await shared.aclose()
        assert shared.status == "success"
        other = await TaskGroup.acreate(callback=note, total_count=3, args=["never"])
        await other.acancel()
        assert other.status == "failed"
