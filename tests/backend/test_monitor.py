"""django-tasks-monitor, a dashboard for any backend of Django's tasks, shows ours right."""

from __future__ import annotations

import asyncio
import sys

import pytest

from i3tasks.signals import flush
from tests.shop import django_tasks as shop
from tests.support.rigs import afinished, working

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(sys.version_info < (3, 12), reason="the dashboard is for Django 6"),
]


@pytest.mark.usefixtures("on_embedded")
def test_it_counts_what_ran_failed_and_waits() -> None:
    from tasks_monitor import stats
    from tasks_monitor.models import TaskRecord

    async def run() -> None:
        async with working():
            await shop.amultiply.aenqueue(6, 7)
            await shop.fails.aenqueue("no")
            await shop.on_third_attempt.aenqueue("x")
            await afinished(3)

    asyncio.run(run())
    assert flush(30)
    shop.multiply.enqueue(1, 2)

    shown = stats.dashboard()
    assert (shown["total"], shown["succeeded"], shown["failed"], shown["waiting"]) == (4, 2, 1, 1)
    assert shown["failure_rate"] == 33.3
    record = TaskRecord.objects.get(task_path="tests.shop.django_tasks.fails")
    assert (record.exception_class, record.attempts) == ("builtins.LookupError", 1)
    assert "LookupError: no" in record.traceback
    assert TaskRecord.objects.get(task_path="tests.shop.django_tasks.on_third_attempt").attempts == 3
