"""Values arrive as they were, in every place where a caller's value can stand; or asking for them says why not."""

import json
from collections.abc import Callable, Iterator
from datetime import datetime
from enum import Enum
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from django.db import transaction
from django.test import override_settings
from hypothesis import example, given, settings
from hypothesis import strategies as st

from i3tasks import RESULT, chain, group, schedule_task, task
from i3tasks.calls.base import Task
from i3tasks.core.values import TAG
from i3tasks.exceptions import ArgumentError, ResultUnavailable, ScheduleError
from i3tasks.models import TaskExecution, TaskExecutionResult, TaskExecutionTry, TaskGroup
from i3tasks.store.schedules import known_schedules
from i3tasks.types import I3TasksSettings, Schedule
from tests.shop.flows import note
from tests.support.exploring import examples

pytestmark = pytest.mark.django_db
ARRIVED: list[Any] = []


class Size(Enum):
    LARGE = "L"


@task
def receive(*args: Any, **kwargs: Any) -> None:
    ARRIVED.append((args, kwargs))


@task
def give(value: Any) -> Any:
    return value


@task(max_retries=0)
def fail_with(value: Any) -> None:
    raise ValueError(value)


@task
def secret() -> str:
    return "SECRET"


@task
def odd() -> Any:
    return {1: "a"}


@task
def large() -> str:
    return "x" * 3000


@pytest.fixture(autouse=True)
def inline() -> Iterator[None]:
    ARRIVED.clear()
    with override_settings(I3TASKS=I3TasksSettings(force_sync=True)):
        yield


def arrived() -> Any:
    [call] = ARRIVED
    ARRIVED.clear()
    return call


# ------------------------------------------------------------------------------------------------- every place

PLACES: dict[str, Callable[[Any], tuple[tuple[Any, ...], dict[str, Any]]]] = {}


def place(send: Callable[[Any], Any]) -> Callable[[Any], Any]:
    PLACES[send.__name__] = send
    return send


@place
def an_argument(value: Any) -> Any:
    receive.delay(value)
    return (value,), {}


@place
def a_keyword(value: Any) -> Any:
    receive.delay(x=value)
    return (), {"x": value}


@place
def the_keywords_themselves(value: Any) -> Any:
    keywords = value if isinstance(value, dict) else {}
    receive.delay(**keywords)
    return (), keywords


@place
def a_later_step(value: Any) -> Any:
    chain(secret.s(), receive.s(value, {"comment": value}, x=value)).delay()
    return (value, {"comment": value}), {"x": value}


@place
def keywords_of_a_later_step(value: Any) -> Any:
    keywords = value if isinstance(value, dict) else {}
    chain(secret.s(), receive.s(**keywords)).delay()
    return (), keywords


@place
def beside_result(value: Any) -> Any:
    chain(secret.s(), receive.s(RESULT, value, {"x": [RESULT, value]})).delay()
    return ("SECRET", value, {"x": ["SECRET", value]}), {}


@place
def then(value: Any) -> Any:
    secret.delay().then(receive, value)
    return (value,), {}


@place
def a_result(value: Any) -> Any:
    chain(give.s(value), receive.s(RESULT)).delay()
    return (value,), {}


@place
def results_of_a_group(value: Any) -> Any:
    group(give.s(value), give.s([value])).then(receive.s(RESULT, value)).delay()
    return ([value, [value]], value), {}


@place
def a_result_that_is_passed_on(value: Any) -> Any:
    chain(give.s(value), give.s(RESULT), group(give.s(RESULT)), receive.s(RESULT)).delay()
    return ([value],), {}


@place
def a_callback_of_a_group(value: Any) -> Any:
    created = TaskGroup.create(receive, 1, [value], {"x": value})
    secret.delay(__i3group__=created)  # type: ignore[call-arg]
    return (value,), {"x": value}


@place
def a_member_after_a_step(value: Any) -> Any:
    chain(secret.s(), group(receive.s(value))).delay()
    return (value,), {}


@place
def a_failure_callback(value: Any) -> Any:
    handle = chain(fail_with.s("no")).otherwise(receive.s(value)).delay()
    return (handle.task_execution_id, value), {}


@place
def waited_for(value: Any) -> Any:
    ARRIVED.append(((give.delay(value).result(),), {}))
    return (value,), {}


json_like = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-99, 99)
    | st.sampled_from(["result", "dict", "set", "unavailable", "enum"]),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(st.sampled_from([TAG, "value", "a"]), inner, max_size=3)
        | st.builds(
            lambda kind, value: {TAG: kind, "value": value}, st.sampled_from(["result", "dict", "tuple"]), inner
        )
    ),
    max_leaves=6,
)


@settings(max_examples=examples(12))
@given(json_like)
@example({TAG: "result", "value": None})
@example({TAG: "dict", "value": {TAG: "result", "value": None}})
@example({TAG: "unavailable", "value": "no"})
@example([{TAG: "tuple", "value": [{TAG: "result", "value": None}]}])
def test_whatever_json_a_caller_sends_arrives_as_it_was_everywhere(value: Any) -> None:
    for name, send in PLACES.items():
        with transaction.atomic():
            expected = send(value)
            assert json.dumps(arrived(), sort_keys=True) == json.dumps(expected, sort_keys=True), name
            transaction.set_rollback(True)


def test_types_arrive_as_themselves_by_every_way() -> None:
    moment = datetime(2026, 3, 28, 9, tzinfo=ZoneInfo("Europe/Berlin"))
    for value in ((1, (2,)), {1, 2}, frozenset({("a",)}), b"\x00\xff", Size.LARGE, moment, moment.timetz()):
        for name, send in PLACES.items():
            expected = send(value)
            assert repr(arrived()) == repr(expected), name


# ------------------------------------------------------------------------------------------- results that are text


def test_asking_for_a_result_that_was_not_kept_names_type_and_task() -> None:
    handle = odd.delay()
    assert TaskExecution.objects.get().outcome == "success"
    assert (TaskExecutionResult.objects.get().result, TaskExecutionResult.objects.get().text_of) == ("{1: 'a'}", "dict")
    with pytest.raises(ResultUnavailable, match=r"\.test_values\.odd returned a dict, which JSON can't hold"):
        handle.result(timeout=5)


@pytest.mark.parametrize(
    "start",
    [
        lambda: chain(odd.s(), note.s("x", {"in": [RESULT]})).delay(),
        lambda: chain(odd.s(), note.s(RESULT)).delay(),
        lambda: group(secret.s(), odd.s()).then(note.s("x", value=RESULT)).delay(),
        lambda: odd.delay().then(note, "x", RESULT),
        lambda: chain(odd.s(), group(note.s("x", RESULT))).delay(),
        lambda: chain(odd.s(), give.s(1), note.s("x")).delay() and chain(odd.s()).delay().then(note, "y", RESULT),
    ],
)
def test_a_step_that_asks_for_one_fails_once_with_the_same_sentence(start: Callable[[], Any]) -> None:
    start()
    failed = TaskExecutionTry.objects.select_related("result").get(is_success=False)
    assert failed.error_class == "i3tasks.exceptions.ResultUnavailable"
    assert "test_values.odd returned a dict" in failed.result.result


# ---------------------------------------------------------------------------------------------------------- sizes


def small(**more: Any) -> I3TasksSettings:
    return I3TasksSettings(force_sync=True, maximum_payload_bytes=2000, **more)


@pytest.mark.parametrize(
    "send",
    [
        lambda value: receive.delay(value),
        lambda value: receive.delay(x=value),
        lambda value: receive.delay_many([(1,), (value,)]),
        lambda value: receive.sync_run(value),
        lambda value: receive.s(value),
        lambda value: receive.build_chain(value),
        lambda value: secret.delay_many([()]) and secret.build_chain().then(receive, value),
        lambda value: TaskGroup.create(receive, 1, [value]),
        lambda value: schedule_task(receive, "* * * * *", args=[value]),
    ],
)
def test_large_arguments_are_refused_before_a_row_is_written(send: Callable[[Any], Any]) -> None:
    with override_settings(I3TASKS=small()), pytest.raises(ArgumentError, match="more than 2,000 bytes"):
        send("x" * 2001)
    assert not TaskExecution.objects.filter(task_name="receive").exists()
    send("x" * 2001)


def test_a_large_result_is_a_success_whose_value_was_not_kept() -> None:
    with override_settings(I3TASKS=small()):
        handle = large.delay()
    stored = TaskExecutionResult.objects.get()
    assert (stored.task_execution_try.is_success, stored.text_of) == (True, "str")
    assert "more than 2,000 bytes" in stored.result
    with pytest.raises(ResultUnavailable, match="larger than maximum_payload_bytes"):
        handle.result()


def test_results_must_not_make_arguments_too_large() -> None:
    with override_settings(I3TASKS=small()):
        chain(give.s("x" * 900), receive.s([RESULT] * 3)).delay()
        group(give.s("x" * 900) for _ in range(3)).then(receive.s(RESULT)).delay()
    assert ARRIVED == []
    failed = TaskExecutionTry.objects.select_related("result").filter(task_execution__task_name="receive")
    assert ["more than 2,000 bytes" in row.result.result for row in failed] == [True, True]


# ------------------------------------------------------------------------------------------------------ schedules


def test_a_schedule_takes_the_same_values() -> None:
    value = {TAG: "result", "value": None, "in": [(1, Size.LARGE)]}
    schedule_task(receive, "* * * * *", name="row", args=[value])
    in_settings = Schedule(__name__, "receive", "* * * * *", args=[value], name="settings")
    with override_settings(I3TASKS=I3TasksSettings(force_sync=True, schedules=(in_settings,))):
        calls = [schedule.call() for schedule in known_schedules()]
    assert [call.args for call in calls] == [calls[0].args] * 2
    with pytest.raises(ArgumentError, match="RESULT"):
        schedule_task(receive, "* * * * *", args=[RESULT])


def test_a_taskgroup_is_not_an_argument() -> None:
    assert isinstance(receive, Task)
    with pytest.raises((ArgumentError, ScheduleError)):
        receive.delay(TaskGroup())
