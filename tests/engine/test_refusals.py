"""A topic that refuses everything: its backlog waits ever longer, and is an event once a minute."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from django.utils import timezone

from i3tasks.broker.outgoing import MakeMessage, Outgoing
from i3tasks.core.clock import SYSTEM_CLOCK, going_by
from i3tasks.engine import outbox
from i3tasks.exceptions import BrokerError
from i3tasks.models import TaskExecutionTry
from i3tasks.store.dispatching import deny_published
from i3tasks.store.operations import DENY
from i3tasks.store.requests import TryRef
from i3tasks.telemetry import subscribe
from tests.store.helpers import ADD, enqueue, row
from tests.support.rigs import made


class Refusing:
    """A publisher whose topics are all gone."""

    is_available = True

    def publish(self, *messages: Outgoing | MakeMessage) -> bool:
        for message in messages:
            outgoing = made(message)
            outgoing.on_done([outgoing], BrokerError("404 Topic not found"))
        return True


class Rig:
    def __init__(self) -> None:
        self.seconds = 1000.0
        self.posted: list[Any] = []
        self.said: list[dict[str, Any]] = []

    def send(self, count: int, queue_name: str | None = None) -> None:
        now = timezone.now()
        outbox.send(TryRef(number, number, ADD.module_name, ADD.func_name, queue_name, now) for number in range(count))


@pytest.fixture
def rig(monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    rig = Rig()
    post_all = lambda operation, refs: rig.posted.extend((operation, ref.try_id) for ref in refs)  # noqa: E731
    monkeypatch.setattr(outbox, "get_publisher", Refusing)
    monkeypatch.setattr(outbox, "writer", SimpleNamespace(post_all=post_all))
    monkeypatch.setattr(outbox, "_failures", outbox._Failures())
    unsubscribe = subscribe(lambda event, facts: rig.said.append({"event": event.name, **facts}))
    with going_by(replace(SYSTEM_CLOCK, monotonic=lambda: rig.seconds)):
        yield rig
    unsubscribe()


def test_twenty_thousand_refusals_are_one_event_a_minute_with_their_number(rig: Rig) -> None:
    rig.send(20_000)
    assert [(item["event"], item["others"]) for item in rig.said] == [("publish_failed", 0)]
    assert rig.said[0]["topic"].endswith("/topics/test.default")
    rig.seconds += 59
    rig.send(1)
    assert len(rig.said) == 1
    rig.seconds += 2
    rig.send(1)
    assert [item["others"] for item in rig.said] == [0, 20_000]
    assert rig.posted == [(DENY, number) for number in range(20_000)] + [(DENY, 0)] * 2, "each row hears of it"


def test_each_topic_and_each_unknown_queue_has_its_own_event(rig: Rig) -> None:
    rig.send(5)
    rig.send(5, "heavy")
    rig.send(5, "gone")
    assert [(item["topic"].rpartition("/")[2], item["others"]) for item in rig.said] == [
        ("test.default", 0), ("test.heavy", 0), ("queue gone", 0),
    ]  # fmt: skip


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("age", "wait"),
    [(0, 5), (9, 5), (10, 10), (39, 20), (80, 80), (86_400, 80)],
)
def test_the_wait_after_a_refusal_doubles_with_the_age_of_the_try(age: int, wait: int) -> None:
    [task_try] = enqueue()
    TaskExecutionTry.objects.update(asked_at=timezone.now())
    task_try = row(task_try)
    now = task_try.asked_at + timedelta(seconds=age)
    deny_published([TryRef.of(task_try)], now=now)
    assert row(task_try).dispatch_at == now + timedelta(seconds=wait)


@pytest.mark.django_db
def test_refused_tries_of_many_ages_take_few_statements(django_assert_max_num_queries: Any) -> None:
    tries = enqueue(100)
    now = timezone.now()
    for index, task_try in enumerate(tries):
        TaskExecutionTry.objects.filter(pk=task_try.pk).update(asked_at=now - timedelta(seconds=3 * index))
    with django_assert_max_num_queries(10):
        deny_published([TryRef.of(task_try) for task_try in tries], now=now)
