"""How long what has ended is kept: from its end or its creation, by outcome and by queue."""

from __future__ import annotations

import io
from datetime import timedelta
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.core.management import call_command
from django.test import override_settings
from django.utils import timezone

from i3tasks.maintenance import clean_old_task_executions, old_task_executions
from i3tasks.models import ScheduleTick, TaskExecution, TaskExecutionTry, TaskGroup
from i3tasks.store.ages import Ages
from i3tasks.store.retention import clean
from i3tasks.types import DatabaseQueue, I3TasksSettings, PullQueue, PushQueue, Retention
from tests.store.helpers import plans
from tests.support.history import a_try, ago, execution, finished

pytestmark = pytest.mark.django_db

DAY, WEEK, YEAR = timedelta(days=1), timedelta(days=7), timedelta(days=365)


def ended(outcome: str | None, days: float, *, created: float = 400, queue: str | None = None) -> int:
    """An execution that was created long ago, and ended so many days ago."""
    row = finished(outcome, ago(days=created), queue_name=queue, try_state=None if outcome else "old failed")
    tries = TaskExecutionTry.objects.filter(task_execution=row)
    tries.update(finished_at=ago(days=days))
    TaskExecution.objects.filter(pk=row.pk).update(finished_at=ago(days=days) if outcome else None)
    return int(row.pk)


def cleaned(settings: dict[str, Any], older_than: timedelta | None = None) -> set[int]:
    """What goes; and it is what was said to go."""
    before = left()
    with override_settings(I3TASKS=I3TasksSettings(**settings)):
        would_go = old_task_executions(older_than)
        said = set() if would_go is None else set(would_go.values_list("pk", flat=True))
        clean_old_task_executions(older_than)
    gone = before - left()
    assert gone == said
    return gone


def left() -> set[int]:
    return set(TaskExecution.objects.values_list("pk", flat=True))


def test_an_age_counts_from_the_end() -> None:
    """What took a year is not old when it ends."""
    old = ended("success", 8)
    ended("success", 6)
    of_before = ended(None, 8)  # by django-i3tasks
    ended(None, 6)
    a_try("pending", ago(days=20))

    assert cleaned({"retention": WEEK}) == {old, of_before}
    assert len(left()) == 3
    assert len(cleaned({"autoclean_older_than": WEEK})) == 2, "by their creation the others are old, too"


def test_each_outcome_has_its_age() -> None:
    rows = {(outcome, days): ended(outcome, days) for outcome in ("success", "failed", "cancelled") for days in (2, 8)}
    ages = Retention(succeeded=WEEK, failed=YEAR, cancelled=DAY)

    gone = cleaned({"retention": ages})

    assert gone == {rows["success", 8], rows["cancelled", 2], rows["cancelled", 8]}
    assert cleaned({"retention": Retention(WEEK)}) == {rows["failed", 8]}


def test_a_queue_has_ages_of_its_own() -> None:
    queues = (
        PullQueue("clicks", "w", retention=DAY),
        DatabaseQueue("invoices", retention=YEAR),
        PushQueue("mail", "w", "https://shop.example.com/i3/tasks-push/", retention=Retention(DAY, failed=YEAR)),
        PullQueue("plain", "w"),
    )
    rows = {
        (queue, days): ended("success", days, queue=queue)
        for queue in (None, "default", "clicks", "invoices", "mail", "plain", "of before")
        for days in (2, 8)
    }
    failed = ended("failed", 8, queue="mail")

    gone = cleaned({"retention": WEEK, "other_queues": queues})

    of_the_rest = {rows[queue, 8] for queue in (None, "default", "plain", "of before")}
    assert gone == of_the_rest | {rows[queue, days] for queue in ("clicks", "mail") for days in (2, 8)}
    assert failed in left()


@pytest.mark.parametrize(
    ("settings", "goes"), [({}, False), ({"autoclean_older_than": YEAR}, True), ({"retention": YEAR}, False)]
)
def test_a_queue_may_be_the_only_one_and_the_default_one(settings: dict[str, Any], goes: bool) -> None:
    """Beside ages that count from the creation, too."""
    unnamed, named, other = (ended("success", 2, queue=queue) for queue in (None, "default", "heavy"))
    both = (PullQueue("default", "worker", retention=DAY), (PullQueue("heavy", "worker"),))

    gone = cleaned({"default_queue": both[0], "other_queues": both[1], **settings})

    assert gone == ({unnamed, named, other} if goes else {unnamed, named})


def test_a_callers_age_takes_the_place_of_those_of_the_settings() -> None:
    settings = {
        "retention": Retention(YEAR, failed=YEAR),
        "other_queues": (PullQueue("heavy", "worker", retention=Retention(YEAR, cancelled=DAY)),),
    }
    here, there, failed, cancelled = (
        ended("success", 8),
        ended("success", 8, queue="heavy"),
        ended("failed", 8),
        ended("cancelled", 2, queue="heavy"),
    )

    assert cleaned(settings, WEEK) == {here, there}
    assert left() == {failed, cancelled}


def test_groups_and_ticks_go_by_the_ages_of_i3tasks_or_of_the_queue_that_keeps_for_longest() -> None:
    group = TaskGroup.objects.create(total_count=1, status=TaskGroup.STATUS_SUCCESS)
    of_before = TaskGroup.objects.create(total_count=1, status=TaskGroup.STATUS_FAILED)
    TaskGroup.objects.update(created_at=ago(days=400), updated_at=ago(days=8))
    TaskGroup.objects.filter(pk=group.pk).update(finished_at=ago(days=8))
    ScheduleTick.objects.create(schedule_key="s", slot=ago(days=8))
    queues = (PullQueue("a", "w", retention=DAY), PullQueue("b", "w", retention=timedelta(days=9)))

    def number() -> tuple[int, int]:
        return TaskGroup.objects.count(), ScheduleTick.objects.count()

    cleaned({"other_queues": queues})
    assert number() == (2, 1)
    cleaned({"other_queues": queues, "retention": WEEK})
    assert number() == (0, 0)
    assert not TaskGroup.objects.filter(pk=of_before.pk).exists()


@pytest.mark.parametrize(("retention", "goes"), [(DAY, True), (timedelta(days=60), False)])
def test_the_dead_of_a_queue_go_at_its_age_but_not_before_31_days(retention: timedelta, goes: bool) -> None:
    dead = execution(ago(days=40), queue_name="heavy").pk
    execution(ago(days=20), queue_name="heavy")
    execution(ago(days=40))

    gone = cleaned({"other_queues": (PullQueue("heavy", "worker", retention=retention),)})

    assert gone == ({dead} if goes else set())


def test_what_is_retried_begins_anew() -> None:
    row = ended("failed", 8)
    TaskExecution.objects.filter(pk=row).update(outcome=None, finished_at=None)
    a_try("running", ago(days=8), of=TaskExecution.objects.get(pk=row), try_number=2, lease_until=ago(days=-1))
    assert cleaned({"retention": WEEK}) == set()
    TaskExecution.objects.filter(pk=row).update(outcome="failed", finished_at=ago(days=1))
    assert cleaned({"retention": WEEK}) == set()


@override_settings(I3TASKS=I3TasksSettings(retention=WEEK, other_queues=(PullQueue("heavy", "worker", retention=DAY),)))
def test_clean_may_be_told_a_queue() -> None:
    rows = [ended("success", 2, queue="heavy"), ended("success", 2), ended("success", 8), ended("success", 8)]
    TaskGroup.objects.create(total_count=1, status=TaskGroup.STATUS_SUCCESS, finished_at=ago(days=400))
    out = io.StringIO()

    call_command("i3tasks_clean", "--queue", "heavy", "--dry-run", stdout=out)
    call_command("i3tasks_clean", "--queue", "heavy", stdout=out)
    assert left() == {*rows[1:]}
    call_command("i3tasks_clean", "--queue", "default", "--days", "1", stdout=out)

    assert left() == set()
    assert TaskGroup.objects.count() == 1
    said = out.getvalue().splitlines()
    assert said[0] == "[dry-run] 1 TaskExecution rows would be deleted."
    assert said[1:] == ["Deleted 1 TaskExecution rows.", "Deleted 3 TaskExecution rows."]


@pytest.mark.postgres
def test_it_goes_by_the_index_on_the_creation() -> None:
    queues = {name: Ages(YEAR, 10 * WEEK, from_end=True) for name in ("a", "b", "c")}
    whole = Ages(YEAR, 11 * WEEK, 9 * WEEK, from_end=True, queues=queues)
    first = plans(lambda: clean(whole, now=timezone.now()))[0]
    assert "i3tasks_te_created_idx" in first, first
    for other_table in ("SubPlan", "Join"):
        assert other_table not in first, first


@pytest.mark.parametrize(
    ("made", "problem"),
    [
        (lambda: Retention(None), "succeeded of Retention must be a timedelta, longer than nothing"),
        (lambda: Retention(WEEK, failed=3), "failed of Retention must be a timedelta or None"),
        (lambda: Retention(timedelta.max), "at most a thousand years"),
        (lambda: Retention(failed=WEEK), "Retention needs succeeded"),
        (lambda: PullQueue("mail", "w", retention=7), "retention of queue 'mail' must be a timedelta, or Retention"),
        (lambda: DatabaseQueue("mail", retention=-DAY), "retention of queue 'mail' must be .* longer than nothing"),
        (lambda: PushQueue("mail", "w", retention="7d"), "retention of queue 'mail' must be"),
    ],
)
def test_an_age_that_is_none_is_refused_in_a_sentence(made: Any, problem: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=problem):
        made()
