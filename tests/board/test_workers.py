"""The page of the workers: who lives, what each runs, and who has gone."""

from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import Permission
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from i3tasks.models import TaskExecutionTry, Worker
from i3tasks.store.stacks import TakenStack, note_stacks
from tests.store.helpers import enqueue, lease

pytestmark = pytest.mark.django_db

URL = "/i3/board/workers/"


def a_worker(name: str, **columns: Any) -> Worker:
    now = timezone.now()
    facts: dict[str, Any] = {
        "role": "worker",
        "state": "running",
        "host": "node-7",
        "pid": 17,
        "version": "1.2.3",
        "queues": ["default", "mail"],
        "concurrency": 10,
        "running": 0,
        "started_at": now - timedelta(hours=3),
        "heartbeat_at": now - timedelta(seconds=2),
    }
    return Worker.objects.create(pk=name, **{**facts, **columns})


def text_of(client: Client) -> str:
    return client.get(URL).content.decode()


def running(worker: str, **age: float) -> TaskExecutionTry:
    [task_try] = enqueue(1)
    lease(task_try, worker_id=worker)
    TaskExecutionTry.objects.filter(pk=task_try.pk).update(started_at=timezone.now() - timedelta(**age))
    return task_try


def test_each_shows_what_it_runs_those_that_run_longest_first(admin_client: Client) -> None:
    a_worker("w1", running=2, trouble="no <way> to Pub/Sub")
    a_worker("w2", state="draining", concurrency=5)
    young, old = running("w1", seconds=3), running("w1", minutes=4)
    page = text_of(admin_client)
    assert page.index(f"add #{old.task_execution_id}") < page.index(f"add #{young.task_execution_id}")
    assert f"/i3/board/executions/{old.task_execution_id}/" in page
    for said in (
        "2 of 15 places busy",
        "node-7, pid 17, i3tasks 1.2.3",
        "default, mail",
        "draining",
        "2 of 10",
        "4 min ago",
    ):
        assert said in page, said
    assert "no &lt;way&gt; to Pub/Sub" in page
    assert "Gone in the last day" not in page


def test_one_that_is_gone_stands_apart_with_what_it_left(admin_client: Client) -> None:
    a_worker("dead", heartbeat_at=timezone.now() - timedelta(minutes=30))
    a_worker("ended", state="stopped")
    left = running("dead", minutes=31)
    page = text_of(admin_client)
    assert "No worker lives" in page
    gone = page[page.index("Gone in the last day") :]
    assert f"add #{left.task_execution_id}" in gone
    assert 'state-gone">gone' in gone
    assert 'state-stopped">stopped' in gone


def test_many_tries_are_shown_in_part_and_cost_no_query_each(admin_client: Client) -> None:
    a_worker("w1", running=25, concurrency=100)
    numbers = []
    for count in (1, 24):
        for _ in range(count):
            running("w1", seconds=1)
        with CaptureQueriesContext(connection) as caught:
            page = text_of(admin_client)
        numbers.append(len(caught))
    assert numbers[0] == numbers[1]
    assert page.count("add #") == 20
    assert "and 5 more" in page


def test_a_visitor_is_sent_to_sign_in(client: Client) -> None:
    assert client.get(URL).status_code == 302


def test_the_stack_of_what_runs_is_asked_for_and_shown_to_those_who_may_see_arguments(
    admin_client: Client, client: Client, django_user_model: Any
) -> None:
    a_worker("w1", running=1)
    at_work = running("w1", seconds=3)
    page, act = f"/i3/board/executions/{at_work.task_execution_id}/", "stack/"
    assert f'href="{page}#board-stack"' in text_of(admin_client)
    assert "Take the stack" in admin_client.get(page).content.decode()

    answer = admin_client.post(page + act)
    assert (answer.status_code, answer["Location"]) == (302, f"{page}#board-stack")
    html = admin_client.get(page).content.decode()
    assert "by admin." in html
    assert "next heartbeat" in html
    note_stacks([TakenStack(at_work.pk, '  File "shop.py", line 3, in <b>charge</b>\n')])
    assert "in &lt;b&gt;charge&lt;/b&gt;" in admin_client.get(page).content.decode()

    looker = django_user_model.objects.create_user("looker", is_staff=True)
    looker.user_permissions.add(Permission.objects.get(codename="view_board"))
    client.force_login(looker)
    assert client.post(page + act).status_code == 403
    assert "board-stack" not in client.get(page).content.decode() + text_of(client)

    TaskExecutionTry.objects.filter(pk=at_work.pk).update(is_completed=True, finished_at=timezone.now())
    html = admin_client.post(page + act, follow=True).content.decode()
    assert "It is not running, so there is no stack to take." in html
    assert admin_client.post("/i3/board/executions/999999/stack/").status_code == 404
