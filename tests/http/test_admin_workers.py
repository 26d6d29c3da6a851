"""The workers' rows in the admin: to be read only."""

from datetime import timedelta

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from i3tasks.models import Worker

pytestmark = pytest.mark.django_db


def test_the_list_shows_who_lives_and_changes_nothing(admin_client: Client) -> None:
    now = timezone.now()
    for name, heartbeat_at in (("alive", now), ("killed", now - timedelta(hours=1))):
        Worker.objects.create(
            pk=name, role="worker", state="running", host="pod-7", pid=1, version="1", queues=["mail"], concurrency=10,
            running=3, started_at=heartbeat_at, heartbeat_at=heartbeat_at,
        )  # fmt: skip

    page = admin_client.get(reverse("admin:i3tasks_worker_changelist"), {"q": "pod"})

    assert page.status_code == 200
    assert [row.pk for row in page.context["cl"].result_list] == ["alive", "killed"]
    assert page.content.count(b'alt="True"') == page.content.count(b'alt="False"') == 1
    assert admin_client.get(reverse("admin:i3tasks_worker_change", args=["alive"])).status_code == 200
    assert admin_client.post(reverse("admin:i3tasks_worker_change", args=["alive"]), {"pid": 2}).status_code == 403
    assert admin_client.get(reverse("admin:i3tasks_worker_add")).status_code == 403
