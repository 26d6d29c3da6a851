"""When which release was deployed, as the processes that run it write it down."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from i3tasks.models import Deploy, Worker
from i3tasks.store.deploys import Deployed, deploys_since
from tests.store.test_workers import note
from tests.support.history import ago

pytestmark = pytest.mark.django_db


def begins(name: str, release: str, at: datetime | None = None, **facts: Any) -> None:
    note(at, id=name, release=release, **facts)


def releases() -> list[str]:
    return list(Deploy.objects.order_by("pk").values_list("release", flat=True))


def test_the_first_process_of_a_release_writes_it_by_the_databases_clock() -> None:
    begins("a", "v1", at := ago(hours=1))
    begins("b", "v1")
    begins("a", "v2", later := ago(minutes=2))

    assert deploys_since(ago(days=1)) == [Deployed("v1", at), Deployed("v2", later)]
    assert Worker.objects.get(pk="a").release == "v2"


def test_during_a_rolling_deploy_a_restart_of_the_old_release_is_none() -> None:
    for name in ("a", "b"):
        begins(name, "v1")
    begins("c", "v2")
    begins("a", "v1")
    begins("d", "v2")

    assert releases() == ["v1", "v2"]


def test_going_back_is_a_deploy_once_no_process_of_the_old_release_lives() -> None:
    begins("a", "v1", ago(hours=1))
    begins("b", "v1", state="stopped")
    begins("c", "v2")
    begins("d", "v1")

    assert releases() == ["v1", "v2", "v1"]


def test_a_release_that_begins_again_after_a_rest_is_no_deploy() -> None:
    begins("a", "v1", ago(hours=9))
    begins("a", "v1")

    assert releases() == ["v1"]


def test_two_that_began_at_the_same_time_are_one_deploy() -> None:
    first = ago(minutes=5)
    for release in ("v1", "v2", "v2"):
        Deploy.objects.create(release=release, first_seen=first)

    assert [one.release for one in deploys_since(first)] == ["v1", "v2"]


def test_what_came_before_is_not_shown() -> None:
    begins("a", "v1", ago(hours=2))
    begins("b", "v2", ago(hours=1))

    assert [one.release for one in deploys_since(ago(minutes=90))] == ["v2"]
    assert deploys_since(ago(minutes=5)) == []


def test_old_deploys_are_deleted_by_new_ones_and_the_last_is_kept() -> None:
    begins("a", "v1", ago(days=150))
    begins("b", "v2", ago(days=100))
    begins("c", "v2")
    assert releases() == ["v1", "v2"]
    begins("d", "v3")
    assert releases() == ["v3"]


def test_without_a_release_and_after_the_first_heartbeat_nothing_is_asked_of_the_table() -> None:
    with CaptureQueriesContext(connection) as captured:
        note()
        begins("a", "v1", is_new=False)
    assert not [query for query in captured.captured_queries if "i3tasks_deploy" in query["sql"]]
    assert releases() == []


def test_a_worker_of_an_older_release_of_i3tasks_which_knows_no_column_for_it_writes_its_row() -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO i3tasks_worker (id, role, state, host, pid, version, queues, started_at, heartbeat_at)"
            " VALUES ('old', 'worker', 'running', 'h', 1, '1', '[]', %s, %s)",
            [ago(), ago()],
        )
    begins("new", "v1")

    assert Worker.objects.get(pk="old").release == ""
    assert releases() == ["v1"]


def test_a_process_reads_it_from_the_settings(settings: Any) -> None:
    from dataclasses import replace

    from i3tasks.engine.worker_row import Presence
    from i3tasks.store.workers import note_workers

    presence = Presence("worker")  # type: ignore[arg-type]
    settings.I3TASKS = replace(settings.I3TASKS, release="1.4.2")
    note_workers([presence], now=ago() + timedelta(0))

    assert releases() == ["1.4.2"]
    assert Worker.objects.get().release == "1.4.2"
