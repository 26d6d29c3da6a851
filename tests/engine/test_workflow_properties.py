"""Random workflows on the store, run step by step with accidents, against an oracle that knows no rows."""

import random

import pytest
from django.db import transaction
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from i3tasks.models import TaskExecution, TaskExecutionTry, TaskGroup
from i3tasks.store.audit import audit
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
    told_of,
)

pytestmark = pytest.mark.django_db
many = settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
choices = st.randoms(use_true_random=False)


@given(choices, st.sampled_from([Moods(), Moods(failing=0, cancelled=0), Moods(failing=0.3, cancelled=0.1)]))
@many
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
        assert set(reckoning.reached.values()) == {1}
        assert results() == reckoning.results
        assert told_of() == reckoning.told
        assert groups() == reckoning.groups
        for call in TaskExecution.objects.filter(task_name="told"):
            about = TaskExecution.objects.get(pk=call.task_args[0])
            assert about.outcome != "success" or about.cancel_requested_at
        assert audit() == []
        transaction.set_rollback(True)


@given(choices)
@many
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
