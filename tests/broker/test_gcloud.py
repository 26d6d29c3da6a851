"""The commands that are printed for the owner of a Google Cloud project."""

import shlex

import pytest

from i3tasks.broker.gcloud import beat_command, push_commands
from i3tasks.conf import Config, get_config
from i3tasks.types import I3TasksSettings, PullQueue, PushQueue

PUSH = "https://shop.example.com/i3/tasks-push/"


@pytest.fixture(autouse=True)
def no_emulator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PUBSUB_EMULATOR_HOST", raising=False)


def config_with(settings: object, *queues: PushQueue | PullQueue) -> Config:
    settings.PUBSUB_CONFIG = {"PROJECT_ID": "shop-1"}  # type: ignore[attr-defined]
    settings.I3TASKS = I3TasksSettings(namespace="shop.eu", other_queues=queues)  # type: ignore[attr-defined]
    return get_config()


def options_of(command: str) -> dict[str, str]:
    return dict(part.removeprefix("--").split("=", 1) for part in shlex.split(command) if part.startswith("--"))


def test_the_beat_stands_beside_the_push_endpoint(settings: object) -> None:
    command = beat_command(config_with(settings, PushQueue("mail", "web", PUSH)), "/elsewhere/")

    assert command.startswith("gcloud scheduler jobs create http shop-eu-beat ")
    assert options_of(command) == {
        "project": "shop-1",
        "location": "$LOCATION",
        "schedule": "* * * * *",
        "time-zone": "Etc/UTC",
        "uri": "https://shop.example.com/i3/tasks-beat/",
        "http-method": "POST",
        "attempt-deadline": "60s",
        "oidc-service-account-email": "$SERVICE_ACCOUNT",
        "oidc-token-audience": "https://shop.example.com/i3/tasks-beat/",
    }


def test_without_a_push_queue_the_host_is_to_be_filled_in(settings: object) -> None:
    command = beat_command(config_with(settings), "/i3/tasks-beat/")

    assert options_of(command)["uri"] == "https://YOUR-SITE/i3/tasks-beat/"


def test_each_push_subscription_is_signed(settings: object) -> None:
    config = config_with(settings, PushQueue("mail", "web", PUSH + "?a=1&b=2"), PullQueue("heavy", "worker"))

    (command,) = push_commands(config)

    assert command.startswith("gcloud pubsub subscriptions modify-push-config shop.eu.mail.web ")
    assert options_of(command) == {
        "project": "shop-1",
        "push-endpoint": PUSH + "?a=1&b=2",
        "push-auth-service-account": "$SERVICE_ACCOUNT",
        "push-auth-token-audience": PUSH + "?a=1&b=2",
    }
