"""Django's settings as one Config: read anew after `override_settings`, and a sentence for each wrong PUBSUB_CONFIG."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.core.exceptions import ImproperlyConfigured
from django.test import override_settings

from i3tasks.conf import (
    DEFAULT_EMULATOR_HOST,
    DEFAULT_EMULATOR_PROJECT,
    EMULATOR_HOST_VARIABLE,
    Config,
    Identity,
    get_config,
)
from i3tasks.exceptions import UnknownQueueError
from i3tasks.types import I3TasksSettings, PullQueue, PushQueue

URL = "https://shop.example.com/push/"


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """`ready()` exports the emulator's address, which a project on the real service would not have."""
    for name in (EMULATOR_HOST_VARIABLE, "GOOGLE_CLOUD_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    get_config.cache_clear()
    yield
    get_config.cache_clear()


def config(pubsub: Any = None, **settings: Any) -> Config:
    with override_settings(PUBSUB_CONFIG=pubsub, I3TASKS=I3TasksSettings(**settings)):
        return get_config()


def test_override_settings_is_seen_at_once_and_undone() -> None:
    before = get_config()
    with override_settings(I3TASKS=I3TasksSettings(namespace="other")):
        assert get_config().settings.namespace == "other"
        with override_settings(PUBSUB_CONFIG={"EMULATOR": True, "PROJECT_ID": "p2"}):
            assert get_config().queue(None).topic == "projects/p2/topics/other.default"
    assert get_config() == before
    assert get_config() is get_config()


@override_settings()
def test_without_any_setting_there_is_an_emulator_and_one_queue() -> None:
    del django_settings.I3TASKS
    del django_settings.PUBSUB_CONFIG
    found = get_config()
    assert (found.pubsub.emulator, found.pubsub.host) == (True, DEFAULT_EMULATOR_HOST)
    assert found.pubsub.project_id == DEFAULT_EMULATOR_PROJECT
    assert [*found.queues] == ["default"]


def test_names_in_pubsub_have_dashes_for_dots_but_in_the_namespace() -> None:
    found = config({"EMULATOR": True, "PROJECT_ID": "p"}, namespace="my.shop", default_queue=PullQueue("a.b", "c.d"))
    names = found.queue("a.b")
    assert names.topic == "projects/p/topics/my.shop.a-b"
    assert names.subscription == "projects/p/subscriptions/my.shop.a-b.c-d"
    assert names.dead_letter_topic == "projects/p/topics/my.shop.a-b.c-d.dead-letter"
    assert names.dead_letter_subscription == "projects/p/subscriptions/my.shop.a-b.c-d.dead-letter"
    assert names.name == "a.b"


def test_queues_are_found_by_name_and_kind() -> None:
    found = config(default_queue=PushQueue("web", "w", URL), other_queues=(PullQueue("heavy", "h"),))
    assert found.queue(None).name == found.queue("").name == "web"
    assert [item.name for item in found.pull_queues] == ["heavy"]
    assert [item.name for item in found.push_queues] == ["web"]
    with pytest.raises(UnknownQueueError, match=r"no queue 'mail' in I3TASKS\. It has: 'web', 'heavy'"):
        found.queue("mail")


PUSHER, OTHER = "push@p.iam.gserviceaccount.com", "other@p.iam.gserviceaccount.com"


def test_urls_and_signers_derive_from_endpoint_and_account() -> None:
    queues = (PushQueue("mail", "w"), PushQueue("film", "w", URL, OTHER, "films"), PullQueue("heavy", "w"))
    for base in ("https://shop.example.com/i3", "https://shop.example.com/i3/"):
        found = config(endpoint=base, service_account=PUSHER, other_queues=queues)
        push = "https://shop.example.com/i3/tasks-push/"
        assert found.queue("mail").push_endpoint == push
        assert found.queue("mail").push_identity == Identity(PUSHER, push)
        assert found.queue("film").push_endpoint == URL
        assert found.queue("film").push_identity == Identity(OTHER, "films")
        assert (found.queue("heavy").push_endpoint, found.queue("heavy").push_identity) == (None, None)
        assert found.push_identities == {Identity(PUSHER, push), Identity(OTHER, "films")}
        assert found.beat_identities == {Identity(PUSHER, "https://shop.example.com/i3/tasks-beat/")}


def test_one_audience_for_all() -> None:
    found = config(endpoint="https://a/", service_account=PUSHER, audience="shop", other_queues=(PushQueue("m", "w"),))
    assert found.push_identities == found.beat_identities == {Identity(PUSHER, "shop")}


def test_beats_may_come_from_who_pushes_where_the_settings_name_no_account() -> None:
    found = config(other_queues=(PushQueue("m", "w", "https://a/i3/tasks-push/", PUSHER),))
    assert found.beat_identities == {Identity(PUSHER, "https://a/i3/tasks-beat/")}


def test_without_an_audience_no_identity_is_expected() -> None:
    """A token for any audience would do otherwise."""
    assert config(service_account=PUSHER).beat_identities == frozenset()
    assert config(other_queues=(PushQueue("m", "w", URL),)).push_identities == frozenset()


@pytest.mark.parametrize("wrong", [{}, "shop", I3TasksSettings])
def test_i3tasks_must_be_its_settings(wrong: Any) -> None:
    with override_settings(I3TASKS=wrong), pytest.raises(ImproperlyConfigured, match="I3TASKS must be an I3TasksSett"):
        get_config()


WRONG: list[tuple[Any, str]] = [
    ("emulator", "PUBSUB_CONFIG must be a dict with EMULATOR, HOST, PROJECT_ID, CREDENTIALS"),
    ([("EMULATOR", True)], "PUBSUB_CONFIG must be a dict"),
    ({"EMULATR": True}, "no key 'EMULATR'. Did you mean 'EMULATOR'?"),
    ({"project_id": "p"}, "Did you mean 'PROJECT_ID'?"),
    ({7: True}, "no key 7. It takes EMULATOR"),
    ({"EMULATOR": "True"}, r"PUBSUB_CONFIG\['EMULATOR'\] must be True or False, not 'True'"),
    ({"EMULATOR": True, "HOST": "localhost"}, r"\['HOST'\] must be 'host:port' of the emulator, not 'localhost'"),
    ({"EMULATOR": True, "HOST": "http://localhost:80/"}, "must be 'host:port'"),
    ({"EMULATOR": True, "HOST": ":80"}, "must be 'host:port'"),
    ({"EMULATOR": True, "HOST": "h:70000"}, "must be 'host:port'"),
    ({"EMULATOR": True, "HOST": "http://localhost:80"}, "must be 'host:port'"),
    ({"EMULATOR": True, "PROJECT_ID": 7}, r"\['PROJECT_ID'\] must be a project's id, not 7"),
    ({}, r"\['PROJECT_ID'\] must name your Google Cloud project.*'EMULATOR': True"),
    ({"EMULATOR": False}, "must name your Google Cloud project"),
    ({"PROJECT_ID": ""}, "must be a project's id"),
    ({"PROJECT_ID": "p", "HOST": "h:1"}, "Remove HOST to use Google's Pub/Sub, or set EMULATOR to True"),
    ({"PROJECT_ID": "p", "CREDENTIALS": "/no/such/file"}, "there is no such file. Give the path"),
    ({"PROJECT_ID": "p", "CREDENTIALS": {"type": "service_account"}}, "Give the path"),
]


@pytest.mark.parametrize(("wrong", "sentence"), WRONG, ids=[str(wrong) for wrong, _ in WRONG])
def test_a_wrong_pubsub_config_is_refused_in_a_sentence(wrong: Any, sentence: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=sentence):
        config(wrong)


def test_a_key_in_place_of_its_path_is_not_shown() -> None:
    for key in ("-----BEGIN PRIVATE KEY-----", {"private_key": "-----BEGIN PRIVATE KEY-----"}):
        with pytest.raises(ImproperlyConfigured, match="that is no path") as caught:
            config({"PROJECT_ID": "p", "CREDENTIALS": key})
        assert "PRIVATE" not in str(caught.value)


def test_an_emulator_in_the_environment_contradicts_the_real_service(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(EMULATOR_HOST_VARIABLE, "h:1")
    with pytest.raises(ImproperlyConfigured, match=f"{EMULATOR_HOST_VARIABLE} is set in the environment"):
        config({"PROJECT_ID": "p"})
    assert config({"EMULATOR": True}).pubsub.host == "h:1"
    assert config({"EMULATOR": True, "HOST": "h:2"}).pubsub.host == "h:2", "what is written wins"


def test_the_real_service_by_key_file_or_default_credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "key.json").write_text("{}")
    by_file = config({"PROJECT_ID": "p", "CREDENTIALS": tmp_path / "key.json"}).pubsub
    assert (by_file.emulator, by_file.host, by_file.credentials) == (False, None, str(tmp_path / "key.json"))
    assert config({"PROJECT_ID": "p"}).pubsub.credentials is None
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "from-the-environment")
    assert config({"EMULATOR": False}).pubsub.project_id == "from-the-environment"


@pytest.mark.parametrize("host", ["localhost:8085", "[::1]:8085", "emulator.internal:1", "127.0.0.1:65535"])
def test_usual_addresses_are_taken(host: str) -> None:
    assert config({"EMULATOR": True, "HOST": host}).pubsub.host == host
