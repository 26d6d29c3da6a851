"""Calls are checked when they are made: arguments that don't fit, and values that are no part of a workflow."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from asgiref.sync import async_to_sync, iscoroutinefunction
from django.test import override_settings

from i3tasks import RESULT, TaskDecorator, TaskMetadata, chain, group, schedule_task, task
from i3tasks.core.concealing import HIDDEN
from i3tasks.exceptions import ArgumentError, I3TasksError, ScheduleError, TaskDefinitionError
from i3tasks.models import TaskExecution, TaskGroup
from i3tasks.testing import drain
from i3tasks.types import I3TasksSettings
from tests.shop.django_tasks import multiply
from tests.shop.flows import mourn, note
from tests.shop.tasks import add, nap

pytestmark = pytest.mark.django_db


@task
def send(recipient: str, subject: str, *, urgent: bool = False) -> None: ...


@task(bind=True)
def bound(value: int, task_metadata: Any = None) -> int:
    return value


@task(bind=True)
def bound_first(task_metadata: TaskMetadata, value: int, *more: int, scale: int = 1, **others: int) -> list[int]:
    return [task_metadata.try_number if task_metadata else 0, (value + sum(more)) * scale, *others.values()]


@task(bind=True, unique=True, sensitive=("value",))
async def bound_first_async(task_metadata: TaskMetadata, /, value: int, depth: int = 1) -> str:
    return f"{task_metadata.task_name} {value} {depth}"


@TaskDecorator(bind=True)
def recorded_first(task_metadata: TaskMetadata | None = None, value: int = 0) -> int:
    return value if task_metadata else -1


@task
def odd_names(self: int, task: int, when: int, function: int = 0, args: int = 0, kwargs: int = 0, name: int = 0) -> int:
    return self + task + when


@task(unique=True)
def rebuild(index: str, depth: int = 1, *more: str, force: bool = False, **flags: str) -> None: ...


@TaskDecorator
def recorded(value: int) -> int:
    return value


WRONG: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
    ((), {}),
    (("a", "b", "c"), {}),
    (("a", "b"), {"nonsense": 1}),
    (("a",), {"recipient": "b", "subject": "c"}),
]
CALLS: dict[str, Callable[[Any, tuple[Any, ...], dict[str, Any]], Any]] = {
    "delay": lambda made, args, kwargs: made.delay(*args, **kwargs),
    "async_run": lambda made, args, kwargs: made.async_run(*args, **kwargs),
    "adelay": lambda made, args, kwargs: async_to_sync(made.adelay)(*args, **kwargs),
    "using": lambda made, args, kwargs: made.using(run_after=60).delay(*args, **kwargs),
    "delay_until": lambda made, args, kwargs: made.delay_until(60, *args, **kwargs),
    "delay_many": lambda made, args, kwargs: made.delay_many([kwargs or args, args]),
    "sync_run": lambda made, args, kwargs: made.sync_run(*args, **kwargs),
    "arun": lambda made, args, kwargs: async_to_sync(made.arun)(*args, **kwargs),
    "s": lambda made, args, kwargs: chain(note.s("first"), made.s(*args, **kwargs)),
    "group": lambda made, args, kwargs: group(made.s(*args, **kwargs)),
    "alone": lambda made, args, kwargs: made.s(*args, **kwargs).delay(),
    "build_chain": lambda made, args, kwargs: made.build_chain(*args, **kwargs),
    "then": lambda made, args, kwargs: note.build_chain("first").then(made, *args, **kwargs),
    "then of a group": lambda made, args, kwargs: group(note.s("x")).then(made.s(*args, **kwargs)),
    "create": lambda made, args, kwargs: TaskGroup.create(made, 1, args, kwargs),
}


@pytest.mark.parametrize("way", CALLS)
@pytest.mark.parametrize(("args", "kwargs"), WRONG, ids=str)
def test_arguments_that_do_not_fit_are_refused_by_every_way(way: str, args: Any, kwargs: Any) -> None:
    with pytest.raises(ArgumentError, match=r"test_binding\.send does not take these arguments: "):
        CALLS[way](send, args, kwargs)
    assert not TaskExecution.objects.exists()


@pytest.mark.parametrize(("args", "kwargs"), WRONG, ids=str)
def test_a_schedule_is_refused_too(args: Any, kwargs: Any) -> None:
    with pytest.raises(ScheduleError, match="don't fit the task"):
        schedule_task(send, "* * * * *", args=args, kwargs=kwargs)


def test_a_callback_of_failure_is_given_an_id_first() -> None:
    for callback in (mourn, mourn.s(), mourn.s("named"), mourn.s(name="x")):  # type: ignore[call-arg, arg-type]
        chain(note.s("a")).otherwise(callback).delay()
        add.using(on_failure=callback)
    for wrong in (nap.s(1.0), send, note.s(RESULT)):
        with pytest.raises(ArgumentError):
            chain(note.s("a")).otherwise(wrong)
        with pytest.raises(ArgumentError):
            add.using(on_failure=wrong)
    with pytest.raises(ArgumentError, match="missing"):
        chain(mourn.s())  # type: ignore[call-arg]


def test_task_metadata_is_the_workers() -> None:
    bound.delay(1)
    bound.s(value=1)
    for args, kwargs in (((1, 2), {}), ((1,), {"task_metadata": None}), ((), {})):
        with pytest.raises(ArgumentError, match=r"task_metadata|missing"):
            bound.delay(*args, **kwargs)
    with pytest.raises(TaskDefinitionError, match="task_metadata"):
        task(bind=True)(note.spec.function)


@pytest.mark.parametrize(
    ("args", "kwargs", "result"),
    [
        ((1,), {}, [1, 1]),
        ((1, 2, 3), {"scale": 10}, [1, 60]),
        ((), {"value": 4, "other": 5}, [1, 4, 5]),
    ],
)
def test_task_metadata_may_stand_first(args: Any, kwargs: Any, result: list[int]) -> None:
    handle = bound_first.delay(*args, **kwargs)
    step = chain(bound_first.s(*args, **kwargs)).delay()
    drain()

    assert handle.result() == step.result() == result
    assert bound_first.sync_run(*args, **kwargs).result.result == result  # type: ignore[attr-defined]
    assert bound_first(None, *args, **kwargs) == [0, *result[1:]], "a plain call gives it first"
    for wrong in ({"task_metadata": None, **kwargs}, {"value": 1, "scale": 2}):
        with pytest.raises(ArgumentError, match=r"task_metadata|multiple|missing"):
            bound_first.delay(*(args or (1,)), **wrong)


def test_metadata_that_stands_first_counts_in_no_position() -> None:
    first = bound_first_async.delay(7)
    assert bound_first_async.delay(value=7, depth=1).task_uuid == first.task_uuid, "unique"
    assert bound_first_async.delay(8).task_uuid != first.task_uuid
    execution = TaskExecution.objects.get(uuid=first.task_uuid)
    assert bound_first_async.spec.concealed(execution.task_args, execution.task_kwargs) == ([HIDDEN], {})
    drain()
    assert first.result() == "bound_first_async 7 1"
    assert iscoroutinefunction(bound_first_async)
    assert recorded_first(value=3).result.result == 3  # type: ignore[attr-defined]
    assert recorded_first(3).result.result == 3  # type: ignore[attr-defined]


@override_settings(I3TASKS=I3TasksSettings(force_sync=True))
def test_a_tasks_parameters_may_have_any_name() -> None:
    named = {"self": 1, "task": 2, "when": 3, "function": 4, "args": 5, "kwargs": 6, "name": 7}
    assert odd_names.delay(**named).result() == 6
    assert async_to_sync(partial(odd_names.adelay, **named))().result() == 6
    odd_names.delay_until(60, **named)
    async_to_sync(partial(odd_names.adelay_until, 60, **named))()
    odd_names.delay_many([named])
    assert odd_names.sync_run(**named).result.result == 6  # type: ignore[attr-defined]
    async_to_sync(partial(odd_names.arun, **named))()
    assert odd_names(**named) == 6
    chain(odd_names.s(**named)).delay()
    handle = note.delay("x").then(odd_names, **named)
    async_to_sync(partial(handle.athen, odd_names, **named))()
    odd_names.build_chain(**named)
    assert set(TaskExecution.objects.filter(task_name="odd_names").values_list("outcome", flat=True)) == {"success"}


def test_unique_goes_by_what_each_parameter_gets() -> None:
    same = [
        rebuild.delay("a"),
        rebuild.delay(index="a"),
        rebuild.delay("a", 1),
        rebuild.delay("a", depth=1),
        rebuild.delay("a", force=False),
    ]
    assert len({handle.task_uuid for handle in same}) == 1
    others = [
        rebuild.delay("b"),
        rebuild.delay("a", 2),
        rebuild.delay("a", 1, "more"),
        rebuild.delay("a", force=True),
        rebuild.delay("a", flag="x"),
        rebuild.delay("a", 1, flag="y"),
    ]
    assert len({handle.task_uuid for handle in [*same, *others]}) == 7


# ------------------------------------------------------------------------------------------- parts of workflows


@pytest.mark.parametrize(
    ("part", "said"),
    [
        (lambda: add(1, 2), r"not 3, a int. .*\.s\(\.\.\.\)"),
        (lambda: nap(1.0), r"the coroutine of nap\(\.\.\.\).* Write nap\.s\(\.\.\.\)"),
        (lambda: recorded(1), r"a try of recorded, which has run already. Write recorded\.s"),
        (lambda: add.delay(1, 2), r"of add that has been enqueued already. Write \.s\(\.\.\.\) instead of \.delay"),
        (lambda: chain(add.s(1, 2)).delay(), r"of add that has been enqueued already"),
        (lambda: group(add.s(1, 2)).delay(), r"a group that has been enqueued already"),
        (lambda: add.spec.function, r"the function add. Decorate it with @task"),
        (lambda: add.adelay(1, 2), r"the coroutine of adelay\(\.\.\.\)\. Write \.s\(\.\.\.\) instead of \.adelay"),
        (lambda: chain(add.s(1, 2)).adelay(), r"Write \.s\(\.\.\.\) instead of \.adelay"),
        (lambda: add.arun(1, 2), r"Write \.s\(\.\.\.\) instead of \.arun"),
        (lambda: add.delay, r"the method delay itself. Write \.s"),
        (lambda: multiply, r"the Django task .*multiply. Write as_task\(multiply\)\.s"),
        (lambda: 0, "not 0"),
        (lambda: "shop.tasks.add", "'shop.tasks.add'"),
    ],
)
def test_what_is_no_part_of_a_workflow_is_refused(part: Callable[[], Any], said: str) -> None:
    for use in (
        lambda: chain(part(), note.s("x")),
        lambda: chain(note.s("x"), part()),
        lambda: note.s("x") | part(),
        lambda: group(part()),
        lambda: group([note.s("x"), part()]),
        lambda: group(note.s("x")).then(part()),
    ):
        with pytest.raises(ArgumentError, match=said):
            use()
    with pytest.raises(ValueError, match=said):
        TaskGroup.create(part(), 1)
    with pytest.raises(TaskDefinitionError, match=said):
        task(add.spec.function, on_success=part())


@pytest.mark.parametrize("part", [[add.s(1, 2)], (add.s(1, 2), add.s(3, 4)), [], {add}])
def test_many_parts_are_given_one_by_one(part: Any) -> None:
    for use in (
        lambda: chain(part),
        lambda: group(note.s("x")).then(part),
        lambda: chain(note.s("x")).otherwise(part),
        lambda: note.build_chain("x").then(part),
    ):
        with pytest.raises(ArgumentError, match="Give its members one by one"):
            use()


@pytest.mark.parametrize(
    "given", [{"task": add.s(1, 2)}, {"task": multiply}, {"args": "ab"}, {"args": 5}, {"kwargs": [1]}], ids=range(5)
)
def test_a_schedule_takes_a_task_and_its_arguments(given: dict[str, Any]) -> None:
    with pytest.raises(ScheduleError, match=r"takes a task|must be a"):
        schedule_task(cron="* * * * *", **{"task": add, "args": [1, 2], **given})


def test_a_single_task_is_what_some_places_take() -> None:
    for use in (
        lambda part: chain(note.s("x")).otherwise(part),
        lambda part: group(note.s("x")).otherwise(part),
        lambda part: note.build_chain("x").then(part),
        lambda part: note.using(on_failure=part),
    ):
        for part in (chain(add.s(1, 2)), group(add.s(1, 2)), add.spec.function, 3):
            with pytest.raises(ArgumentError, match="takes a task, or a signature"):
                use(part)


@pytest.mark.parametrize("deadline", [0, -1, float("nan"), float("inf"), "60", True])
def test_a_deadline_that_is_none_is_refused(deadline: Any) -> None:
    with pytest.raises(ArgumentError, match="deadline must be"):
        group(note.s("x"), deadline=deadline)


# ------------------------------------------------------------------------------------------------- in coroutines


@pytest.mark.django_db(transaction=True)
async def test_each_method_that_would_block_names_its_twin() -> None:
    handle = await add.adelay(1, 2)
    shared = await group(add.s(1, 2)).adelay()
    calls: dict[str, Callable[[], Any]] = {
        "adelay": lambda: add.delay(1, 2),
        "adelay ": lambda: add.s(1, 2).delay(),
        "adelay  ": lambda: chain(add.s(1, 2)).delay(),
        "adelay   ": lambda: group(add.s(1, 2)).delay(),
        "adelay_many": lambda: add.delay_many([(1, 2)]),
        "adelay_until": lambda: add.delay_until(60, 1, 2),
        "arun": lambda: add.sync_run(1, 2),
        "athen": lambda: handle.then(add, 1, 2),
        "acancel": handle.cancel,
        "aretry": handle.retry,
        "areschedule": lambda: handle.reschedule(60),
        "aresult": handle.result,
        "aclose": shared.close,
        "acancel ": shared.cancel,
        "TaskGroup.acreate": lambda: TaskGroup.create(add, 1, [1, 2]),
        "aschedule_task": lambda: schedule_task(add, "* * * * *", args=[1, 2]),
    }
    for twin, call in calls.items():
        with pytest.raises(I3TasksError, match=f"can't be used inside a coroutine.* Await {twin.strip()} instead"):
            call()
