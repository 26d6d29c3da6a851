"""The page of the tasks: figures of each, and errors by class and place."""

from datetime import timedelta

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from i3tasks.dashboard.tasks import errors_of, facts_of_tasks, place_of
from i3tasks.models import Deploy, TaskExecutionTry
from i3tasks.store.ended_tries import ended_lately, failed_lately, percentile
from tests.support.history import a_try, ago

pytestmark = pytest.mark.django_db

URL = "/i3/board/tasks/"
TRACEBACK = (
    'Traceback:\n  File "/app/a.py", line 1, in run\n  File "/app/b.py", line {}, in pay\n    raise CardDeclined\n'
)


def took(seconds: float, name: str, state: str = "success", waited: float = 0, **columns: str) -> None:
    row = a_try(state, ago(minutes=5), name=name, result=1, **columns)
    begun = row.asked_at + timedelta(seconds=waited)
    TaskExecutionTry.objects.filter(pk=row.pk).update(started_at=begun, finished_at=begun + timedelta(seconds=seconds))


def test_each_task_has_its_count_failures_times_and_waits() -> None:
    for seconds in range(1, 21):
        took(seconds, "shop.pay", waited=2)
    took(1, "shop.mail")
    took(3, "shop.mail", "failed")
    pay, mail = facts_of_tasks(ended_lately(timezone.now()))
    assert (pay.name, len(pay.tries), pay.failed, pay.duration, pay.slow, pay.wait) == ("shop.pay", 20, 0, 10.5, 19, 2)
    assert (mail.name, mail.percent, mail.duration) == ("shop.mail", 50, 2)


def test_deploys_are_marked_where_they_were(admin_client: Client) -> None:
    took(1, "shop.pay")
    took(1, "shop.pay", "failed")
    Deploy.objects.create(release="long ago", first_seen=ago(days=2))
    Deploy.objects.create(release="<b>2.0</b>", first_seen=ago(hours=6))

    text = admin_client.get(URL).content.decode()

    marked = "Deployed 6 h ago: &lt;b&gt;2.0&lt;/b&gt;"
    assert f'<path d="M90.0 3V28"/><path class="around" d="M90.0 3V28"/><title>{marked}</title>' in text
    assert f'aria-label="2 tries ended, 1 of which failed. {marked}."' in text
    assert "<b>&lt;b&gt;2.0&lt;/b&gt;</b>" in text, "also as text, with all the others"
    assert "long ago" not in text


def test_without_a_release_nothing_is_marked(admin_client: Client) -> None:
    took(1, "shop.pay")
    assert "eployed" not in admin_client.get(URL).content.decode()


def test_percentiles() -> None:
    assert percentile([], 95) is None
    assert percentile([7], 95) == 7
    assert percentile(range(100, 0, -1), 95) == 95


def test_errors_are_grouped_by_class_and_place_the_most_frequent_first(admin_client: Client) -> None:
    for line in (5, 9, 9):
        took(1, "shop.pay", "failed", error_class="shop.CardDeclined", error_traceback=TRACEBACK.format(line))
    took(1, "shop.pay", "failed", error_class="<script>")
    found = errors_of(failed_lately(timezone.now()).tries)
    assert (found[0].error_class, found[0].place, len(found[0].tries)) == ("shop.CardDeclined", "/app/b.py:9 in pay", 2)
    assert {error.place for error in found} == {"/app/b.py:9 in pay", "/app/b.py:5 in pay", ""}
    text = admin_client.get(URL).content.decode()
    assert "/app/b.py:9 in pay" in text
    assert "&lt;script&gt;" in text
    assert "<script>" not in text.replace("<script src", "")
    assert f"/i3/board/executions/{found[0].latest.execution_id}/" in text


def test_a_traceback_without_frames_has_no_place() -> None:
    assert place_of("") == place_of("boom") == ""


def test_it_asks_as_often_however_much_there_is(admin_client: Client) -> None:
    def asked() -> int:
        with CaptureQueriesContext(connection) as captured:
            admin_client.get(URL)
        return len(captured)

    took(1, "shop.pay", "failed")
    few = asked()
    for number in range(9):
        took(1, f"shop.task{number}", "failed")
    assert asked() == few
