"""GET tasks-health/: shape, status codes and token, as documented."""

from datetime import timedelta
from typing import Any

import pytest
from django.db import OperationalError, connection
from django.test import AsyncClient, Client, override_settings
from django.urls import reverse

from i3tasks.broker import publisher
from i3tasks.broker.publisher import get_publisher
from i3tasks.types import I3TasksSettings
from i3tasks.views import monitoring
from tests.shop.tasks import add
from tests.support.children import free_port
from tests.support.history import a_try, ago
from tests.support.rigs import NotingPublisher, until

URL = "/i3/tasks-health/"
OPEN = override_settings(I3TASKS=I3TasksSettings())
CLOSED = override_settings(I3TASKS=I3TasksSettings(health_token="a-long-random-string"))


@pytest.fixture(autouse=True)
def _untroubled_publisher(monkeypatch: pytest.MonkeyPatch) -> None:
    """The process's publisher may have met a broker that another test took away."""
    monkeypatch.setattr(publisher, "_current", None)


@pytest.mark.django_db(transaction=True)
async def test_it_answers_as_documented(async_client: AsyncClient) -> None:
    response = await async_client.get(URL)

    assert (response.status_code, response["Content-Type"]) == (200, "application/json")
    body = response.json()
    assert body.pop("now").endswith("+00:00")
    assert body.pop("counted_since").endswith("+00:00")
    assert body == {
        "status": "ok",
        "window_minutes": 60,
        "thresholds": {"stuck_minutes": 15, "failed_threshold": 5, "pending_age_seconds_threshold": 300},
        "totals": {"pending": 0, "running": 0, "success": 0, "failed": 0},
        "stuck_running": 0,
        "oldest_pending_age_seconds": 0,
        "problems": [],
        "by_task": [],
    }
    assert "no-store" in response["Cache-Control"]


@pytest.mark.django_db
def test_critical_is_503_and_a_warning_200(client: Client) -> None:
    for number in range(6):
        a_try("failed", ago(minutes=number))
    assert (client.get(URL).status_code, client.get(URL).json()["status"]) == (200, "warning")

    a_try("running", ago(minutes=16))

    response = client.get(URL)
    assert (response.status_code, response.json()["status"]) == (503, "critical")
    assert response.json()["problems"] == [
        "1 tries running for more than 15 minutes",
        "6 failed tries in last 60 minutes (>5)",
    ]
    assert response.json()["by_task"] == [
        {
            "task_path": "app.tasks.send_email",
            "task_name": "send_email",
            "success": 0,
            "failed": 6,
            "running": 1,
            "pending": 0,
        }
    ]


def test_its_url_has_the_documented_name() -> None:
    assert reverse("i3tasks-health") == URL


@pytest.mark.parametrize("method", ["post", "put", "patch", "delete", "head", "options"])
def test_only_get(client: Client, method: str) -> None:
    assert getattr(client, method)(URL).status_code == 405


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("header", "query", "expected"),
    [
        (None, "", 401),
        (None, "?token=wrong", 401),
        (None, "?token=a-long-random-string", 200),
        ("Bearer a-long-random-string", "", 200),
        ("Bearer wrong", "", 401),
        ("Bearer wrong", "?token=a-long-random-string", 401),
        ("Bearer ", "?token=a-long-random-string", 401),
        ("Basic xyz", "?token=a-long-random-string", 200),
        ("bearer a-long-random-string", "", 401),
        ("Bearer \N{SNOWMAN}", "", 401),
        (None, "?token=%E2%98%83", 401),
    ],
)
@CLOSED
def test_the_token_is_asked_for(client: Client, header: str | None, query: str, expected: int) -> None:
    headers = {} if header is None else {"Authorization": header}

    response = client.get(URL + query, headers=headers)

    assert response.status_code == expected
    if expected == 401:
        assert response.json() == {"status": "unauthorized"}


@CLOSED
def test_without_the_token_nothing_is_looked_up(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor could it: this test may not use the database."""
    monkeypatch.setattr(monitoring, "health_of_tasks", None)

    assert client.get(URL).status_code == 401


@pytest.mark.django_db
@OPEN
def test_without_a_token_in_the_settings_it_is_open(client: Client) -> None:
    assert client.get(URL, headers={"Authorization": "Bearer whatever"}).status_code == 200


def test_a_database_that_is_away_is_critical(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    async def away(*_: Any, **__: Any) -> Any:
        raise OperationalError("password authentication failed for user secret")

    monkeypatch.setattr(monitoring, "health_of_tasks", away)

    response = client.get(URL)

    assert response.status_code == 503
    assert response.json() == {"status": "critical", "problems": ["the database gave no answer"]}


@pytest.mark.django_db(transaction=True)
def test_it_works_under_atomic_requests(client: Client) -> None:
    connection.settings_dict["ATOMIC_REQUESTS"] = True
    try:
        assert client.get(URL).status_code == 200
    finally:
        connection.settings_dict["ATOMIC_REQUESTS"] = False


@pytest.mark.django_db
def test_a_real_task_is_counted(client: Client, sent: NotingPublisher) -> None:
    add.sync_run(1, 2)
    add.using(run_after=timedelta(days=1)).delay(1, 2)

    body = client.get(URL).json()

    assert body["totals"] == {"pending": 0, "running": 0, "success": 1, "failed": 0}
    assert [facts["task_path"] for facts in body["by_task"]] == ["tests.shop.tasks.add"]


@pytest.mark.django_db(transaction=True)
def test_a_broker_that_is_away_is_a_warning(client: Client, settings: Any) -> None:
    """Workers go on from the database. The process that answers has met the outage itself."""
    settings.PUBSUB_CONFIG = {"EMULATOR": True, "HOST": f"127.0.0.1:{free_port()}", "PROJECT_ID": "away"}
    add.delay(1, 2)
    until(lambda: get_publisher().trouble)
    response = client.get(URL)
    assert (response.status_code, response.json()["status"]) == (200, "warning")
    assert response.json()["problems"][0].startswith("broker unavailable: Pub/Sub gave no answer")
    get_publisher().retire()
