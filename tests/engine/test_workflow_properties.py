"""Random workflows on the store, run step by step with accidents, against an oracle that knows no rows."""

import random

import pytest
from django.db import transaction
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from i3tasks.models import TaskExecution, TaskExecutionTry, TaskGroup
from i3tasks.store.audit import audit
from tests.support.exploring import examples
from tests.support.flowdriver import (
    Driver,
    Moods,
    Reckoning,
    Shapes,
    fates,
    flat,
    groups,
    results,
    start,
    step,
    told_of,
)

pytestmark = [pytest.mark.django_db, pytest.mark.timeout(900)]


def looks_at(count: int) -> settings:
    """So many examples in a plain run. Each takes half a second or more; `tests.explore` looks at others."""
    return settings(max_examples=examples(count), deadline=None, suppress_health_check=list(HealthCheck))


choices = st.randoms(use_true_random=False)
MOODS = [Moods(), Moods(failing=0, cancelled=0), Moods(failing=0.3, cancelled=0.1), Moods(failing=0.15, cancelled=0.15)]


@given(choices, st.sampled_from(MOODS))
@looks_at(9)
def test_a_workflow_comes_to_what_it_must(choose: random.Random, moods: Moods) -> None:
    with transaction.atomic():
        shapes = Shapes(choose)
        workflow = shapes.workflow()
        handle = start(workflow)
        parts = flat(workflow)
        driver = Driver(choose, moods)
        while driver.turn() or choose.random() < 0.5:
            if choose.random() < 0.1:
                late = shapes.leaf(has_before=True)
                parts.append(late)
                assert handle.then(late.canvas()) is handle
        reckoning = Reckoning(fates())
        reckoning.sequence(parts, None)
        assert reckoning.reached.keys() == reckoning.fates.keys(), "nothing was called but what had to be"
        assert set(reckoning.reached.values()) == ({1} if reckoning.fates else set())  # all groups may be empty
        assert results() == reckoning.results
        assert told_of() == reckoning.told
        assert groups() == reckoning.groups
        for call in TaskExecution.objects.filter(task_name="told"):
            about = TaskExecution.objects.get(pk=call.task_args[0])
            assert about.outcome != "success" or about.cancel_requested_at
            assert about.outcome == "failed" or call.task_args[1] not in reckoning.told_of_failures
        assert audit() == []
        transaction.set_rollback(True)


@given(choices)
@looks_at(8)
def test_a_cancelled_workflow_starts_nothing_more(choose: random.Random) -> None:
    with transaction.atomic():
        shapes = Shapes(choose)
        handle = start(shapes.workflow())
        driver = Driver(choose, Moods(accidents=0.1))
        while choose.random() < 0.8:
            driver.turn()
        calls = TaskExecution.objects.exclude(task_name="told")
        before = calls.count()
        was_over = not driver.open()
        handle.cancel()
        if not was_over:
            handle.then(shapes.leaf(has_before=True).canvas())
        while driver.turn():
            pass
        assert calls.count() == before
        assert not TaskExecutionTry.objects.filter(is_completed=False).exists()
        assert not TaskGroup.objects.filter(status="pending").exists()
        assert not told_of() or set(told_of().values()) == {1}
        assert audit() == []
        transaction.set_rollback(True)


@given(choices, st.booleans())
@looks_at(6)
def test_a_group_is_joined_by_steps_of_chains_that_fail_and_are_retried_and_cleaned(
    choose: random.Random, wait_for_all: bool
) -> None:
    """Each member is added to a chain that waits, runs, has succeeded, has failed, or was cancelled."""
    with transaction.atomic():
        names = [f"joined {number}" for number in range(choose.randint(1, 4))]
        shared = TaskGroup.create(callback=step, total_count=len(names), args=["joined all"])
        TaskGroup.objects.update(wait_for_all=wait_for_all)
        to_join = {name: start(Shapes(choose, prefix=f"{name} ").workflow(1)) for name in names}
        driver = Driver(choose, Moods(failing=0.15, cancelled=0.05, retried=0.2))
        was_called = False

        def look() -> None:
            """In the end they may have been deleted, like all that has succeeded."""
            nonlocal shared, was_called
            shared = TaskGroup.objects.filter(pk=shared.pk).first() or shared
            was_called |= TaskExecution.objects.filter(task_name="step", task_args__0="joined all").exists()

        driver.before_cleaning = look
        while driver.turn() or to_join:
            if to_join and choose.random() < 0.3:
                name, handle = to_join.popitem()
                handle.then(step, name, __i3group__=shared)
                driver.moods.cleaned = 0.0 if to_join else 0.3  # a handle needs its row
        look()
        joined = TaskExecution.objects.filter(task_name="step", task_args__0__in=names)
        assert shared.status != "pending"
        assert shared.completed_count >= 0 <= shared.failed_count
        assert was_called == (shared.status == "success")
        if shared.status == "success":
            assert (shared.completed_count, shared.failed_count) == (len(names), 0)
        elif wait_for_all:
            assert shared.completed_count + shared.failed_count == len(names)
            assert joined.filter(outcome="success").count() < len(names) or driver.retried
        assert not TaskExecutionTry.objects.filter(is_completed=False).exists()
        assert audit() == []
        transaction.set_rollback(True)


@given(choices)
@looks_at(12)
def test_a_workflow_can_be_cancelled_whatever_is_cleaned_meanwhile(choose: random.Random) -> None:
    with transaction.atomic():
        handle = start(Shapes(choose).workflow())
        driver = Driver(choose, Moods(failing=0.05, cancelled=0, accidents=0.1, cleaned=0.5))
        while choose.random() < 0.8 and driver.turn():
            pass
        if driver.open():
            handle.cancel()
            assert not [item for item in driver.open() if item.task_execution.task_name != "told"]
            assert not TaskGroup.objects.filter(status="pending").exists()
        transaction.set_rollback(True)
