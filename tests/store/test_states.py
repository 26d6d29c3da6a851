"""The states of a try: every row is in exactly one, and the query and the loaded row agree on it."""

from itertools import product

import pytest
from django.db.models import Q

from i3tasks.models import TaskExecution, TaskExecutionTry, TryState
from tests.support.history import a_try, ago, execution

pytestmark = pytest.mark.django_db


def test_every_combination_of_columns_is_in_one_state_by_query_and_by_row() -> None:
    now = ago()
    combinations = list(product([None, now], [None, now], [False, True], [False, True]))
    of = execution()
    names = ("started_at", "finished_at", "is_completed", "is_success")
    for number, values in enumerate(combinations, 1):
        TaskExecutionTry.objects.create(task_execution=of, try_number=number, **dict(zip(names, values, strict=True)))
    found = [
        (task_try, [state for state in TryState if TaskExecutionTry.objects.filter(state.condition(), pk=task_try.pk)])
        for task_try in TaskExecutionTry.objects.all()
    ]
    assert len(found) == 16
    assert [states for _, states in found] == [[TryState.of(task_try)] for task_try, _ in found]


def test_a_failed_try_of_django_i3tasks_is_found_by_the_state_that_it_is_shown_in() -> None:
    old = a_try("old failed")
    assert TryState.of(old) is TryState.FAILED
    assert list(TaskExecutionTry.objects.filter(TryState.FAILED.condition())) == [old]
    assert not TaskExecutionTry.objects.filter(TryState.RUNNING.condition()).exists()


def test_the_condition_serves_queries_that_reach_the_tries_from_elsewhere() -> None:
    failed, running = a_try("failed"), a_try("running")
    of_failed: Q = TryState.FAILED.condition("tries__")
    assert list(TaskExecution.objects.filter(of_failed)) == [failed.task_execution]
    assert list(TaskExecution.objects.filter(TryState.RUNNING.condition("tries__"))) == [running.task_execution]
