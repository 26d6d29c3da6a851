"""The commands that are printed for the owner of a Google Cloud project."""

import shlex
from typing import Any

import pytest

from i3tasks.broker.gcloud import beat_command, push_grants
from i3tasks.conf import Config, get_config
from i3tasks.types import I3TasksSettings, PullQueue, PushQueue

PUSH = "https://shop.example.com/i3/tasks-push/"
PUSHER = "push@shop-1.iam.gserviceaccount.com"


@pytest.fixture(autouse=True)
def no_emulator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PUBSUB_EMULATOR_HOST", raising=False)


def config_with(settings: object, *queues: PushQueue | PullQueue, **changes: Any) -> Config:
    settings.PUBSUB_CONFIG = {"PROJECT_ID": "shop-1"}  # type: ignore[attr-defined]
    settings.I3TASKS = I3TasksSettings(namespace="shop.eu", other_queues=queues, **changes)  # type: ignore[attr-defined]
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


def test_a_beat_is_signed_by_the_account_of_the_settings(settings: object) -> None:
    config = config_with(settings, endpoint="https://shop.example.com/i3", service_account=PUSHER, audience="shop")
    options = options_of(beat_command(config, "/elsewhere/"))

    assert options["uri"] == "https://shop.example.com/i3/tasks-beat/"
    assert (options["oidc-service-account-email"], options["oidc-token-audience"]) == (PUSHER, "shop")


def test_a_beat_brings_the_secret_where_there_is_only_one(settings: object) -> None:
    command = beat_command(config_with(settings, beat_token="a secret of this test"), "/i3/tasks-beat/")

    assert options_of(command)["headers"] == "Authorization=Bearer $BEAT_TOKEN"
    assert "a secret" not in command
    assert "oidc" not in command


def test_each_account_that_signs_gets_its_roles_once(settings: object) -> None:
    queues = (PushQueue("mail", "web"), PushQueue("film", "web", service_account="film@shop-1.iam.gserviceaccount.com"))
    config = config_with(settings, *queues, endpoint="https://shop.example.com/i3/", service_account=PUSHER)

    commands = push_grants(config)

    roles = [(options_of(command).get("role"), options_of(command).get("member")) for command in commands]
    film = "film@shop-1.iam.gserviceaccount.com"
    assert roles == [
        ("roles/run.invoker", f"serviceAccount:{film}"),
        ("roles/iam.serviceAccountUser", "$DEPLOYER"),
        ("roles/run.invoker", f"serviceAccount:{PUSHER}"),
        ("roles/iam.serviceAccountUser", "$DEPLOYER"),
        (None, None),
        (
            "roles/iam.serviceAccountTokenCreator",
            "serviceAccount:service-${PROJECT_NUMBER}@gcp-sa-pubsub.iam.gserviceaccount.com",
        ),
    ]
    assert "PROJECT_NUMBER=" in commands[4]


def test_without_an_account_nothing_is_granted(settings: object) -> None:
    assert push_grants(config_with(settings, PushQueue("mail", "web", PUSH))) == []
