"""The page of the queues: what it shows of each, and that it pauses and resumes them."""

from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from i3tasks.dashboard.queues import facts_of_queues
from i3tasks.models import QueuePause, TaskExecutionTry
from i3tasks.store.ended_tries import ended_lately
from i3tasks.store.enqueue import NewExecution
from i3tasks.store.pauses import pause
from tests.store.helpers import enqueue, lease
from tests.support.history import a_try, ago

pytestmark = pytest.mark.django_db

URL = "/i3/board/queues/"
HEAVY = NewExecution("tests.shop.tasks", "add", [1, 2], {}, queue_name="heavy")


def text_of(client: Client) -> str:
    return client.get(URL).content.decode()


def test_each_queue_has_its_depth_rate_waits_and_workers() -> None:
    waiting, running = enqueue(2), enqueue(1, HEAVY)
    TaskExecutionTry.objects.filter(pk=waiting[0].pk).update(asked_at=ago(minutes=3))
    lease(*running)
    for minutes in (1, 2, 3):
        a_try("success", ago(minutes=minutes), result=1)
    now = timezone.now()
    found, is_cut = facts_of_queues(now, ended_lately(now))
    default, push, heavy = found
    assert [queue.name for queue in found] == ["default", "push", "heavy"]
    assert [queue.kind for queue in found] == ["pull", "push", "pull"]
    assert default.counts == {"waiting": 2, "running": 0, "deferred": 0}
    assert 180 <= default.oldest < 200
    assert heavy.counts["running"] == 1
    assert len(default.tries) == 3
    assert default.rate == "3.0 per day"
    assert (push.wait, push.is_paused, is_cut) == (None, False, False)
    assert str(default.ended_line).startswith('<svg class="chart spark"')


def test_it_pauses_and_resumes_with_the_users_name(admin_client: Client) -> None:
    assert "Pause heavy" in text_of(admin_client)
    answer = admin_client.post(f"{URL}pause/", {"queue": "heavy"}, follow=True)
    assert "heavy is paused: none of its tries begins." in answer.content.decode()
    assert QueuePause.objects.get().paused_by == "admin"
    assert "Resume heavy" in text_of(admin_client)
    assert (
        "heavy was paused already."
        in admin_client.post(f"{URL}pause/", {"queue": "heavy"}, follow=True).content.decode()
    )
    answer = admin_client.post(f"{URL}resume/", {"queue": "heavy"}, follow=True)
    assert "heavy is resumed: its waiting tries are due." in answer.content.decode()
    assert not QueuePause.objects.exists()


@pytest.mark.parametrize("fields", [{}, {"queue": ""}, {"queue": "\x00"}, {"queue": "x" * 5000}])
@pytest.mark.parametrize("act", ["pause", "resume"])
def test_a_form_that_names_no_queue_changes_none(admin_client: Client, act: str, fields: dict[str, str]) -> None:
    QueuePause.objects.create(queue_name="default", paused_at=timezone.now())
    answer = admin_client.post(f"{URL}{act}/", fields, follow=True)
    said = [str(message) for message in answer.context["messages"]]
    assert said[0].startswith("There is no queue" if fields.get("queue") else "The form names no queue.")
    assert QueuePause.objects.count() == 1


@pytest.mark.parametrize("act", ["pause", "resume"])
def test_a_queue_that_there_is_not_is_said_so(admin_client: Client, act: str) -> None:
    answer = admin_client.post(f"{URL}{act}/", {"queue": "<b>"}, follow=True).content.decode()
    assert "There is no queue &#x27;&lt;b&gt;&#x27; in I3TASKS" in answer


def test_who_may_only_look_sees_no_button_and_changes_nothing(client: Client) -> None:
    user = User.objects.create_user("ann", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename="view_board"))
    client.force_login(user)
    assert "<form" not in text_of(client)
    assert client.post(f"{URL}pause/", {"queue": "heavy"}).status_code == 403
    assert not QueuePause.objects.exists()


def test_acts_need_a_csrf_token(django_user_model: Any) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(User.objects.create_superuser("root"))
    assert client.post(f"{URL}pause/", {"queue": "heavy"}).status_code == 403
    assert client.get(f"{URL}pause/").status_code == 405


def test_what_others_named_is_text(admin_client: Client) -> None:
    QueuePause.objects.create(queue_name="<script>1</script>", paused_by="<i>", paused_at=timezone.now())
    text = text_of(admin_client)
    assert "<script>1" not in text
    assert "&lt;script&gt;1" in text
    assert "by &lt;i&gt;" in text


def test_it_asks_as_often_however_much_there_is(admin_client: Client) -> None:
    def asked() -> int:
        with CaptureQueriesContext(connection) as captured:
            text_of(admin_client)
        return len(captured)

    a_try("success", ago(minutes=1), result=1)
    enqueue(1)
    few = asked()
    for _ in range(5):
        a_try("success", ago(minutes=1), result=1)
    enqueue(20, HEAVY)
    pause("heavy")
    assert asked() == few


def test_what_ended_longer_ago_than_a_day_is_left_out() -> None:
    a_try("success", ago(days=2), result=1)
    a_try("failed", ago(hours=2), result=1)
    found = ended_lately(timezone.now())
    assert [one.is_success for one in found.tries] == [False]
    assert not found.is_cut
    assert found.seconds == timedelta(days=1).total_seconds()


def test_where_too_many_ended_it_says_from_when_on_they_are_all_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("i3tasks.store.ended_tries.MOST", 3)
    for minutes in (5, 4, 3, 1):
        a_try("success", ago(minutes=minutes), result=1)
    found = ended_lately(timezone.now())
    assert (len(found.tries), found.is_cut) == (3, True)
    assert 230 <= found.seconds <= 260
    assert found.buckets(found.tries, 2, lambda part: float(len(part))) == [2.0, 1.0]
