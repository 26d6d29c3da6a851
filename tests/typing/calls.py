# pyright: reportUnnecessaryTypeIgnoreComment=true
"""What type checkers must make of a task. Never run: `mypy --strict` and `pyright` read it.

A `type: ignore` marks a mistake that must be found: mypy and pyright report it as unused when it is not.
"""

from collections.abc import Coroutine
from datetime import timedelta
from typing import Any, assert_type
from uuid import UUID

from i3tasks import ChainHandle, Signature, TaskMetadata, task
from i3tasks.models import TaskExecutionTry, TaskGroup
from i3tasks.types import I3TasksSettings, PullQueue, PushQueue
from i3tasks.utils import TaskDecorator


@task
def add(left: int, right: int = 0) -> int:
    return left + right


@task(queue_name="mail", max_retries=5, timeout=30)
async def send(recipient: str, *, subject: str = "") -> str:
    return recipient + subject


@task(bind=True)
def bound(value: int, task_metadata: Any = None) -> bool:
    return bool(task_metadata)


@task(bind=True, timeout=30)
async def bound_first(task_metadata: TaskMetadata, value: int, *, note: str = "") -> bool:
    return task_metadata.is_first_try


@task(bind=True)
def bound_first_sync(task_metadata: TaskMetadata | None, value: int = 0) -> str:
    return str(task_metadata)


@task(bind=True)
def bound_keyword_only(value: int, *, task_metadata: TaskMetadata) -> bool:
    return task_metadata.is_first_try


@task(bind=False)
def not_bound(task_metadata: TaskMetadata) -> None: ...


@TaskDecorator(bind=True, encoding="utf-8")
def older_bound(task_metadata: TaskMetadata, value: int) -> int:
    return value


@TaskDecorator(bind=True)
async def older_bound_async(value: int, task_metadata: TaskMetadata | None = None) -> int:
    return value


@TaskDecorator
def older(value: int) -> int:
    return value


@TaskDecorator(queue_name="mail")
async def older_async(value: int) -> int:
    return value


def calling_is_a_plain_call() -> None:
    assert_type(add(1, 2), int)
    coroutine = assert_type(send("a@example.com"), Coroutine[Any, Any, str])
    coroutine.close()
    assert_type(bound(1), bool)
    add("1")  # type: ignore[arg-type]


def delay_keeps_the_arguments() -> None:
    assert_type(add.delay(1, right=2), ChainHandle[int])
    assert_type(add.delay(1).result(timeout=1), int)
    assert_type(send.delay("a@example.com"), ChainHandle[str])
    assert_type(add.delay(1, right=2).task_uuid, UUID | None)
    assert_type(add.async_run(1).task_execution_id, int | None)
    send.delay("a@example.com", subject="Hi")
    add.delay("1")  # type: ignore[call-overload]
    add.delay()  # type: ignore[call-overload]
    add.delay(1, 2, 3)  # type: ignore[call-overload]
    send.delay("a@example.com", subjekt="Hi")  # type: ignore[call-overload]


def what_bind_gives_is_not_asked_of_callers() -> None:
    assert_type(bound.delay(1), ChainHandle[bool])
    assert_type(bound.s(1), Signature[bool])
    bound.delay()  # type: ignore[call-overload]
    assert_type(bound_first.delay(1, note="x"), ChainHandle[bool])
    assert_type(bound_first.s(1), Signature[bool])
    assert_type(bound_first.using(run_after=60).delay(1).result(), bool)
    assert_type(bound_first_sync.delay(), ChainHandle[str])
    assert_type(older_bound.delay(1), ChainHandle[int])
    assert_type(older_bound(1), TaskExecutionTry)
    assert_type(older_bound_async.delay(1), ChainHandle[int])
    bound_first.delay()  # type: ignore[call-overload]
    bound_first.delay("1")  # type: ignore[call-overload]
    bound_first.s("1")  # type: ignore[arg-type]
    bound_first_sync.delay(1, 2)  # type: ignore[call-overload]
    older_bound.delay("1")  # type: ignore[call-overload]
    # No type can take a keyword away, so this form needs a default, and not_bound's parameter is the callers'.
    bound_keyword_only.delay(1)  # type: ignore[call-overload]
    not_bound.delay()  # type: ignore[call-overload]


async def a_plain_call_gives_it_first(metadata: TaskMetadata) -> None:
    assert_type(await bound_first(metadata, 1), bool)
    assert_type(bound_first_sync(metadata, 1), str)
    assert_type(bound_first_sync(None), str)
    assert_type(await bound_first.adelay(1), ChainHandle[bool])
    await bound_first(1)  # type: ignore[arg-type, call-arg]


def a_call_joins_a_group(group: TaskGroup) -> None:
    assert_type(add.delay(1, __i3group__=group), ChainHandle[int])
    add.delay(1, __i3group__="a group")  # type: ignore[call-overload]


def using_gives_the_same_task() -> None:
    later = add.using(run_after=timedelta(hours=1), queue_name="heavy", max_retries=0)
    assert_type(later(1), int)
    later.delay(1)
    later.delay("1")  # type: ignore[call-overload]
    add.using(run_later=1)  # type: ignore[call-arg]


async def twins() -> None:
    assert_type(await add.adelay(1), ChainHandle[int])
    assert_type(await (await send.adelay("a@example.com")).aresult(), str)
    await send.adelay("a@example.com", subject="Hi")
    await add.adelay_many([(1, 2), {"left": 3}])
    assert_type(await send("a@example.com"), str)
    assert_type(await add.arun(1), TaskExecutionTry)
    await add.adelay("1")  # type: ignore[call-overload]


def running_here() -> None:
    assert_type(add.sync_run(1), TaskExecutionTry)
    assert_type(older(1), TaskExecutionTry)
    assert_type(older_async(1), TaskExecutionTry)
    older.delay(1)
    older.delay("1")  # type: ignore[call-overload]


def settings() -> None:
    I3TasksSettings(
        namespace="shop",
        default_queue=PullQueue("default", "worker"),
        other_queues=(PushQueue("mail", "web", "https://shop.example.com/i3/tasks-push/"),),
    )
    I3TasksSettings(namespaze="shop")  # type: ignore[call-arg]
    I3TasksSettings(default_queue="default")  # type: ignore[arg-type]
