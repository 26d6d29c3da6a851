"""Tries of a DatabaseQueue, which are written as published: workers find them, and nobody has a message to send."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.test import override_settings
from django.utils import timezone

from i3tasks import chain, group, types
from i3tasks.core.outcome import Success
from i3tasks.models import TaskExecutionTry
from i3tasks.store.cancel import retry_failed
from i3tasks.store.claims import claim
from i3tasks.store.dispatching import next_due, take_due, withhold
from i3tasks.store.enqueue import insert
from i3tasks.store.fallback import WaitingRequest, take_waiting
from i3tasks.store.inserting import due_refs
from i3tasks.store.pauses import is_aside, pause, paused_queues, release, resume
from i3tasks.store.requests import Refusal, Settled, TryRef
from i3tasks.store.settle import settle
from i3tasks.utils import TaskDecorator
from tests.shop.tasks import add
from tests.store.helpers import ADD, at, columns, failure, lease, request, row, says

pytestmark = pytest.mark.django_db(transaction=True)

NEAR, FAR = "near", "far"
AT_ONCE, FEW, HOUR = timedelta(0), timedelta(seconds=15), timedelta(hours=1)
ON_NEAR, ON_FAR = replace(ADD, queue_name=NEAR), replace(ADD, queue_name=FAR)


@pytest.fixture(autouse=True)
def near_and_far(settings: Any) -> Iterator[None]:
    """A queue in the database, and one with a topic."""
    changed = replace(
        settings.I3TASKS, default_queue=types.DatabaseQueue(NEAR), other_queues=(types.PullQueue(FAR, "worker"),)
    )
    with override_settings(I3TASKS=changed):
        yield


@TaskDecorator(topic_name="own")
def with_its_own_topic() -> None:
    """A task that goes to no queue."""


def taken(now: datetime, *, published: timedelta = AT_ONCE) -> list[int]:
    """Ids of what a worker of the queue gets that looks at this instant."""
    wanted = WaitingRequest((NEAR,), published, FEW, 100, 100)
    return [ref.try_id for ref in take_waiting([wanted], now=at(now))[0]]


def written(*fields: str) -> list[tuple[Any, ...]]:
    return [tuple(each.values()) for each in columns("publish_count", *fields)]


def test_it_is_written_as_its_confirmation_would_leave_it() -> None:
    now = timezone.now()
    tries = insert([ON_NEAR, replace(ON_NEAR, queue_name=None), ON_FAR], now=now)
    later, soon = now + HOUR, now + timedelta(seconds=60)
    assert written("dispatch_at") == [(1, later), (1, later), (0, soon)]
    assert [task_try.publish_count for task_try in tries] == [1, 1, 0]
    refs = due_refs(tries)
    assert [(ref.is_published, ref.dispatch_at) for ref in refs] == [(True, later), (True, later), (False, soon)]
    assert refs == due_refs([row(task_try) for task_try in tries])


def test_it_does_not_matter_whose_clock_it_was() -> None:
    """A caller's clock that is ahead keeps no worker from what it wrote."""
    now = timezone.now()
    [task_try] = insert([ON_NEAR], now=now + timedelta(seconds=5))
    assert taken(now) == [task_try.pk]
    assert taken(now) == [], "it is left to the worker that took it"


def test_what_is_deferred_is_published_in_its_time() -> None:
    now = timezone.now()
    [task_try] = insert([replace(ON_NEAR, run_after=now + HOUR)], now=now)
    assert written("dispatch_at") == [(0, now + HOUR)]
    assert taken(now) == []
    assert take_due(10, now=at(now + HOUR)) == [TryRef.of(row(task_try))]


def test_no_dispatcher_has_anything_to_do() -> None:
    now = timezone.now()
    insert([ON_NEAR] * 3, now=now)
    assert take_due(10, now=at(now + HOUR - FEW)) == []
    assert next_due(HOUR, now=at(now)) is None


def test_a_task_with_a_topic_of_its_own_has_messages() -> None:
    spec = with_its_own_topic.spec
    call = replace(ADD, module_name=spec.module_name, func_name=spec.func_name, args=[], queue_name=spec.queue_name())
    insert([call], now=timezone.now())
    assert written("task_execution__queue_name") == [(0, None)]


def test_a_queue_that_is_gone_from_the_settings_is_reported_later() -> None:
    insert([replace(ON_NEAR, queue_name="gone")], now=timezone.now())
    assert written() == [(0,)]


def test_a_queue_that_gets_a_topic_has_its_tries_published(settings: Any) -> None:
    now = timezone.now()
    tries = insert([ON_NEAR] * 2, now=now)
    changed = replace(settings.I3TASKS, default_queue=types.PullQueue(NEAR, "worker"), other_queues=())
    with override_settings(I3TASKS=changed):
        assert taken(now, published=FEW) == [], "a message may be on its way"
        assert taken(now + FEW, published=FEW) == [task_try.pk for task_try in tries], "none is heard of"
        TaskExecutionTry.objects.update(publish_count=1, dispatch_at=now + HOUR)
        due = take_due(100, now=at(now + HOUR))
        assert {ref.try_id for ref in due} == {task_try.pk for task_try in tries}, "as if their messages were lost"
        assert not any(ref.is_published for ref in due)


def test_a_pause_holds_it_and_its_end_sets_it_free() -> None:
    pause(NEAR)
    claimed, untouched = insert([ON_NEAR] * 2, now=timezone.now())
    assert claim([request(claimed)]) == [Refusal.PAUSED]
    assert (is_aside(row(claimed)), is_aside(row(untouched))) == (True, False)
    assert withhold(due_refs([untouched])) == [None]
    assert is_aside(row(untouched)), "as by a process that knows of the pause when it is to publish it"
    assert taken(timezone.now()) == []
    resume(NEAR)
    assert release(10, paused_queues()) == 2
    assert sorted(ref.try_id for ref in take_due(10)) == [claimed.pk, untouched.pk]


@pytest.mark.parametrize(("queue", "count"), [(NEAR, 1), (FAR, 0)])
def test_a_retry_without_a_delay_is_written_so_and_one_with_a_delay_is_not(queue: str, count: int) -> None:
    now = timezone.now()
    claimed = lease(*insert([replace(ADD, queue_name=queue)] * 2, now=now))
    answers = settle([says(claimed[0], failure(0)), says(claimed[1], failure(30))])
    assert [ref.is_published for answer in answers for ref in _settled(answer).due] == [bool(count)]
    at_once, delayed = columns("publish_count", "run_after", "dispatch_at")[2:]
    assert (at_once["publish_count"], at_once["run_after"]) == (count, None)
    assert (delayed["publish_count"], delayed["dispatch_at"]) == (0, delayed["run_after"])


@pytest.mark.parametrize(("queue", "count"), [(NEAR, 1), (FAR, 0)])
def test_so_is_a_retry_by_hand(queue: str, count: int) -> None:
    [task_try] = insert([replace(ADD, queue_name=queue)], now=timezone.now())
    settle([says(lease(task_try)[0], failure())])
    [retried] = retry_failed([task_try.task_execution_id], now=timezone.now()).tries
    assert (retried.publish_count, row(retried).publish_count) == (count, count)


@pytest.mark.usefixtures("sent")
def test_so_are_the_steps_and_members_of_workflows() -> None:
    chain(group(add.s(1, 2), add.using(queue_name=FAR).s(3, 4)), add.s(5, 6)).delay()
    members = list(TaskExecutionTry.objects.order_by("pk"))
    assert [member.publish_count for member in members] == [1, 0]
    answers = settle([says(claimed, Success(3)) for claimed in lease(*members)])
    assert [ref.is_published for answer in answers for ref in _settled(answer).due] == [True]
    assert written() == [(1,), (0,), (1,)]


def _settled(answer: Any) -> Settled:
    assert isinstance(answer, Settled)
    return answer
