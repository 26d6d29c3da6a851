"""Chains, groups and joins, run inline by `force_sync`: the rows at the end are those of a worker."""

from collections.abc import Iterator

import pytest
from django.test import override_settings

from i3tasks import RESULT, chain, group
from i3tasks.exceptions import ArgumentError
from i3tasks.models import TaskExecution, TaskExecutionResult, TaskGroup
from i3tasks.types import I3TasksSettings
from tests.shop.flows import break_down, double, mourn, note, total, with_failure_hook, with_hook
from tests.shop.models import Order

pytestmark = [
    pytest.mark.django_db,
    pytest.mark.usefixtures("inline"),
]


@pytest.fixture
def inline() -> Iterator[None]:
    with override_settings(I3TASKS=I3TasksSettings(force_sync=True)):
        yield


def noted() -> list[str]:
    return list(Order.objects.order_by("pk").values_list("name", flat=True))


def result_of(name: str) -> object:
    results = TaskExecutionResult.objects.filter(task_execution_try__task_execution__task_name=name)
    return results.latest("pk").result


def test_a_chain_runs_its_steps_in_order_and_passes_results_on_request() -> None:
    chain(double.s(2), double.s(RESULT), note.s("end", RESULT)).delay()
    assert noted() == ["end"]
    assert result_of("note") == 8


def test_then_appends_to_a_finished_chain_in_turn() -> None:
    note.delay("one").then(note, "two").then(note, "three")
    assert noted() == ["one", "two", "three"]


def test_a_tasks_own_on_success_and_the_chain_both_run() -> None:
    chain(note.s("first"), with_hook.s("second"), note.s("last")).delay()
    assert noted() == ["first", "second", "after", "last"]


def test_a_failed_step_ends_the_chain_and_is_told_once() -> None:
    handle = chain(note.s("first"), break_down.s("second"), note.s("never")).otherwise(mourn).delay()
    failed = TaskExecution.objects.get(task_name="break_down")
    assert noted() == ["first", "second", f"mourned:{failed.pk}"]
    assert handle.task_execution_id != failed.pk


def test_on_failure_of_a_task() -> None:
    handle = with_failure_hook.delay()
    assert noted() == [f"mourned:{handle.task_execution_id}"]


def test_a_group_joins_its_members_results_in_order() -> None:
    started = group(double.s(n) for n in range(5)).then(total.s(RESULT)).delay()
    started.refresh_from_db()
    assert (started.status, started.completed_count) == (TaskGroup.STATUS_SUCCESS, 5)
    assert result_of("total") == 20


def test_groups_in_chains_chains_in_groups_groups_in_groups() -> None:
    inner = group(double.s(RESULT), double.s(10))
    workflow = chain(
        double.s(1),
        group(chain(double.s(RESULT), double.s(RESULT)), inner),
        note.s("joined", RESULT),
    )
    workflow.delay()
    assert noted() == ["joined"]
    assert result_of("note") == [8, [4, 20]]
    assert not TaskGroup.objects.exclude(status=TaskGroup.STATUS_SUCCESS).exists()


def test_a_failure_deep_inside_fails_every_group_around_it() -> None:
    inner = group(double.s(1), break_down.s("deep"))
    group(double.s(2), inner).then(note.s("never")).otherwise(mourn).delay()
    failed = TaskExecution.objects.get(task_name="break_down")
    assert noted() == ["deep", f"mourned:{failed.pk}"]
    assert set(TaskGroup.objects.values_list("status", flat=True)) == {TaskGroup.STATUS_FAILED}


def test_an_empty_group_calls_back_at_once() -> None:
    group().then(note.s("empty", RESULT)).delay()
    assert noted() == ["empty"]
    assert result_of("note") == []


def test_the_documented_group() -> None:
    shared = TaskGroup.create(callback=note, total_count=2, args=["all"])
    note.delay("a", __i3group__=shared)
    assert noted() == ["a"]
    note.delay("b", __i3group__=shared)
    assert noted() == ["a", "b", "all"]
    assert TaskGroup.create(callback=note.build_chain("none").then(note, "after"), total_count=0).status == "success"
    assert noted()[-2:] == ["none", "after"]
    with pytest.raises(ValueError, match="args"):
        TaskGroup.create(callback=note.build_chain("x"), total_count=1, args=["y"])


def test_wait_for_all_decides_at_the_end() -> None:
    group(break_down.s(), note.s("other"), wait_for_all=True).otherwise(mourn).delay()
    failed = TaskExecution.objects.get(task_name="break_down")
    assert noted() == ["broken", "other", f"mourned:{failed.pk}"]


def test_a_result_in_the_first_step_is_refused() -> None:
    with pytest.raises(ArgumentError, match="first step"):
        chain(double.s(RESULT)).delay()
    with pytest.raises(ArgumentError, match="later step"):
        double.delay(RESULT)


def test_close_decides_by_those_that_ended() -> None:
    shared = TaskGroup.create(callback=note, total_count=9, args=["closed"])
    note.delay("a", __i3group__=shared)
    shared.close()
    assert (shared.status, noted()) == ("success", ["a", "closed"])
