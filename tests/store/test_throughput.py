"""What was done lately: counts, waits and failures of the rows, and that no number of rows makes them dear."""

from datetime import timedelta

import pytest
from django.utils import timezone

from i3tasks.models import TaskExecutionTry
from i3tasks.store import throughput
from i3tasks.store.ended_tries import ended_lately, failed_lately
from i3tasks.store.throughput import failures, recent
from tests.support.history import a_try, execution, finished

pytestmark = pytest.mark.django_db
HOUR = timedelta(hours=1)


def test_nothing_is_an_hour_of_nothing() -> None:
    found = recent(timezone.now())

    assert (found.ended, found.failed, found.per_second, found.longest_wait) == (0, 0, 0, None)
    assert [one.number for one in failures(timezone.now(), [HOUR])] == [0]


def test_tries_are_counted_where_they_ended_with_their_wait() -> None:
    now = timezone.now()
    for state, ended, waited in (("success", 250, 4), ("failed", 249, 8), ("success", 1, 2)):
        row = a_try(state, now, result=1)
        times = {"asked_at": now - timedelta(seconds=ended + waited), "started_at": now - timedelta(seconds=ended)}
        TaskExecutionTry.objects.filter(pk=row.pk).update(**times, finished_at=times["started_at"])
    a_try("success", now - timedelta(hours=2), result=1)
    a_try("running", now)

    found = recent(now)

    assert found.seconds == 300
    counts = {number: (one.succeeded, one.failed) for number, one in enumerate(found.buckets) if one.ended}
    assert counts == {10: (1, 1), 59: (1, 0)}
    assert found.buckets[10].wait == pytest.approx(6)
    assert found.longest_wait == pytest.approx(8)
    assert found.per_second == pytest.approx(3 / 300)


def test_a_deferred_try_waits_from_when_it_is_due() -> None:
    now = timezone.now()
    row = a_try("success", now, result=1, run_after=now - timedelta(seconds=3))
    TaskExecutionTry.objects.filter(pk=row.pk).update(asked_at=now - HOUR)

    assert recent(now).longest_wait == pytest.approx(3)


def test_what_comes_too_fast_for_an_hour_is_shown_for_as_long_as_was_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(throughput, "MOST_RESULTS", 3)
    now = timezone.now()
    for seconds in (400, 70, 65, 5):
        a_try("success", now - timedelta(seconds=seconds), result=1)

    found = recent(now)

    assert (found.seconds, found.ended) == (60, 1)


def test_failures_are_those_of_executions_that_failed_for_good() -> None:
    now = timezone.now()
    finished("failed", now - timedelta(minutes=5), name="a.b")
    finished("failed", now - timedelta(hours=5), name="a.b")
    finished("cancelled", now - timedelta(minutes=5))
    retrying = execution()
    a_try("failed", now - timedelta(minutes=5), of=retrying)
    a_try("pending", now, of=retrying, try_number=2)

    hour, day = failures(now, [HOUR, 24 * HOUR])

    assert (hour.number, hour.is_cut, list(hour.tasks)) == (1, False, [("a.b", 1)])
    assert (day.number, day.is_cut, list(day.tasks)) == (2, False, [("a.b", 2)])


def test_many_failures_are_counted_as_far_as_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(throughput, "MOST_FAILURES", 2)
    now = timezone.now()
    for minutes in (1, 2, 180, 190):
        finished("failed", now - timedelta(minutes=minutes))

    hour, day = failures(now, [HOUR, 24 * HOUR])

    assert (hour.number, hour.is_cut) == (2, False)
    assert (day.number, day.is_cut) == (3, True)


def test_a_cancelled_try_has_not_failed() -> None:
    now = timezone.now()
    finished("cancelled", now - timedelta(seconds=9))
    a_try("failed", now - timedelta(seconds=8), result=1, error_class="i3tasks.exceptions.TaskCancelled")
    finished("failed", now - timedelta(seconds=7))
    assert [(found.ended, found.failed) for found in [recent(now)]] == [(1, 1)]
    assert len(ended_lately(now).tries) == len(failed_lately(now).tries) == 1
