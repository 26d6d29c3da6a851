"""The pages of the groups: progress, failed members, close and cancel."""

import re
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from i3tasks import group
from i3tasks.models import TaskExecution, TaskExecutionTry, TaskGroup
from i3tasks.testing import drain
from tests.shop.tasks import add, fail

pytestmark = pytest.mark.django_db

URL = "/i3/board/groups/"


def text_of(client: Client, path: str = "", **query: Any) -> str:
    return client.get(f"{URL}{path}", query).content.decode()


def test_the_list_shows_how_far_each_is(admin_client: Client) -> None:
    done, waiting = group([add.s(1, 2)]).delay(), group([add.s(1, 2), add.s(3, 4), fail.s()]).delay()
    TaskGroup.objects.filter(pk=waiting.pk).update(completed_count=1)
    TaskGroup.objects.filter(pk=done.pk).update(completed_count=1, status="success")
    text = text_of(admin_client)
    assert f'<progress max="3" value="1" aria-label="Group {waiting.pk}: 1 of 3"></progress>' in text
    assert text.index(f"Group {waiting.pk}<") < text.index(f"Group {done.pk}<"), "the newest first"
    only = text_of(admin_client, status="success")
    assert f"Group {done.pk}<" in only
    assert f"Group {waiting.pk}<" not in only


def test_a_long_list_has_pages(admin_client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("i3tasks.dashboard.groups.ON_A_PAGE", 2)
    rows = [TaskGroup.objects.create(total_count=1) for _ in range(3)]
    first = text_of(admin_client, status="pending")
    assert f"?status=pending&amp;before={rows[1].pk}" in first
    second = text_of(admin_client, status="pending", before=rows[1].pk)
    assert f"Group {rows[0].pk}<" in second
    assert f"Group {rows[2].pk}<" not in second
    assert "Older" not in second
    assert admin_client.get(URL, {"before": "x" * 30, "status": "no"}).status_code == 200


def test_a_group_shows_its_failed_members_and_what_it_calls(admin_client: Client) -> None:
    whole = group([add.s(1, 2), fail.using(max_retries=0).s()]).then(add.s(1, 2)).delay()
    drain()
    text = text_of(admin_client, f"{whole.pk}/")
    [failed] = TaskExecution.objects.filter(outcome="failed")
    assert f'<a href="/i3/board/executions/{failed.pk}/">{failed}</a> <span class="error mono">' in text
    assert "1 succeeded, 1 failed, of 2" in text
    assert "tests.shop.tasks.add" in text
    assert "Close</button>" not in text, "it has ended"
    assert admin_client.get(f"{URL}999/").status_code == 404


def test_members_are_shown_with_their_states_the_first_ones_of_a_group_that_is_not_too_large(
    admin_client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = group([add.s(1, 2), add.s(3, 4), fail.using(max_retries=0).s()]).delay()
    first = whole.members.earliest("pk")
    TaskExecutionTry.objects.filter(task_execution=first).update(run_after=timezone.now() + timedelta(hours=1))
    drain()
    members = text_of(admin_client, f"{whole.pk}/").partition('id="members-title"')[2]
    assert re.findall(r"state-(\w+)", members) == ["deferred", "succeeded", "failed"]
    monkeypatch.setattr("i3tasks.store.lineage.MOST_SORTED", 2)
    assert text_of(admin_client, f"{whole.pk}/").count("state-succeeded") == 1, "in any order"


def test_a_group_can_be_closed_and_cancelled(admin_client: Client) -> None:
    first, second = (group([add.s(1, 2), add.s(3, 4)]).delay() for _ in range(2))
    text = admin_client.post(f"{URL}{second.pk}/cancel/", follow=True).content.decode()
    assert f"Group {second.pk} is cancelled" in text
    second.refresh_from_db()
    assert second.status == "failed"
    assert set(second.members.values_list("outcome", flat=True)) == {"cancelled"}
    text = admin_client.post(f"{URL}{first.pk}/close/", follow=True).content.decode()
    assert f"Group {first.pk} is closed" in text
    first.refresh_from_db()
    assert (first.status, first.total_count) == ("success", 0)
    text = admin_client.post(f"{URL}{first.pk}/cancel/", follow=True).content.decode()
    assert f"Group {first.pk} has ended already." in text
    assert admin_client.post(f"{URL}999/close/").status_code == 404


def test_what_a_row_holds_is_text(admin_client: Client) -> None:
    row = TaskGroup.objects.create(total_count=2, callback_task_path="<script>", callback_task_name="x")
    for path in ("", f"{row.pk}/"):
        assert "<script>.x" not in text_of(admin_client, path)
        assert "&lt;script&gt;.x" in text_of(admin_client, path)


def test_a_page_asks_as_often_however_many_members_there_are(admin_client: Client) -> None:
    def asked(row: TaskGroup) -> int:
        with CaptureQueriesContext(connection) as captured:
            text_of(admin_client, f"{row.pk}/")
        return len(captured)

    small, large = (group([fail.using(max_retries=0).s() for _ in range(count)]).delay() for count in (1, 7))
    drain()
    assert asked(large) == asked(small)
