"""`I3TasksSettings` and its values: every documented name and default, and a sentence for every mistake."""

import copy
import dataclasses
import inspect
import math
import pickle
from datetime import timedelta
from pprint import pformat
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured

from i3tasks import RetryPolicy
from i3tasks.types import I3TasksSettings, PullQueue, PushQueue, Queue, Schedule
from i3tasks.types.rules import RANGES

URL = "https://shop.example.com/i3/tasks-push/"

DOCUMENTED = {
    "other_queues": (),
    "schedules": (),
    "force_sync": False,
    "default_max_retries": 3,
    "retry_minimum_backoff_seconds": 10,
    "retry_maximum_backoff_seconds": 600,
    "task_retry_backoff_base_seconds": 2,
    "task_retry_backoff_max_seconds": 60,
    "run_queue_create_command_on_startup": True,
    "register_client_teardown": True,
    "health_token": None,
    "status_token": None,
    "autoclean_older_than": None,
    "health_window_minutes": 60,
    "health_stuck_minutes": 15,
    "health_failed_threshold": 5,
    "health_pending_age_seconds_threshold": 300,
}


@pytest.mark.parametrize(("name", "default"), DOCUMENTED.items())
def test_every_documented_setting_has_its_documented_default(name: str, default: object) -> None:
    value = getattr(I3TasksSettings(), name)
    assert (value, type(value)) == (default, type(default))


def test_a_django_i3tasks_project_reads_as_it_was_written() -> None:
    settings = I3TasksSettings(
        namespace="shop",
        default_queue=PushQueue(queue_name="default", subscription_name="web", push_endpoint=URL),
        other_queues=(PullQueue(queue_name="heavy", subscription_name="worker"),),
        schedules=(Schedule(module_name="shop.tasks", func_name="clean", cron="0 3 * * *", args=[1], kwargs={}),),
        autoclean_older_than=timedelta(days=30),
        health_token="secret",
    )
    assert [queue.queue_name for queue in settings.queues] == ["default", "heavy"]


def test_every_setting_is_optional_and_works_alone() -> None:
    assert I3TasksSettings().default_queue == PullQueue("default", "worker")


@pytest.mark.parametrize("release", [None, "", "1.4.2", "é" * 200])
def test_a_release_may_be_anything_short_on_one_line(release: str | None) -> None:
    assert I3TasksSettings(release=release).release == release


def test_a_list_is_taken_for_a_tuple() -> None:
    settings = I3TasksSettings(other_queues=[PullQueue("a", "b")], task_modules=["x"])  # type: ignore[arg-type]
    assert (settings.other_queues, settings.task_modules) == ((PullQueue("a", "b"),), ("x",))


def test_values_unpack_like_the_namedtuples_they_were() -> None:
    name, subscription, endpoint = PushQueue("a", "b", URL)
    assert (name, subscription, endpoint) == ("a", "b", URL)
    assert tuple(PullQueue("a", "b")) == ("a", "b")
    assert tuple(Schedule("m", "f", "* * * * *")) == ("m", "f", "* * * * *", [], {})
    assert Queue is PushQueue
    assert not hasattr(PullQueue("a", "b"), "push_endpoint")


VALUES = [I3TasksSettings(), PullQueue("a", "b"), PushQueue("a", "b", URL), RetryPolicy(max_retries=7)]


@pytest.mark.parametrize("value", VALUES)
def test_values_are_frozen_and_can_be_copied(value: Any) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(value, dataclasses.fields(value)[0].name, "other")
    with pytest.raises(dataclasses.FrozenInstanceError):
        delattr(value, dataclasses.fields(value)[0].name)
    assert copy.deepcopy(value) == pickle.loads(pickle.dumps(value)) == dataclasses.replace(value) == value


@pytest.mark.parametrize("value", VALUES)
def test_a_frozen_dataclass_can_inherit_from_a_value(value: Any) -> None:
    @dataclasses.dataclass(frozen=True)
    class WithNote(type(value)):  # type: ignore[misc]
        note: str = ""

    given = {item.name: getattr(value, item.name) for item in dataclasses.fields(value)}
    noted = WithNote(**given, note="ours")
    assert (noted.note, {name: getattr(noted, name) for name in given}) == ("ours", given)
    assert dataclasses.replace(noted, note="") != noted
    with pytest.raises(dataclasses.FrozenInstanceError):
        noted.note = "theirs"


def test_a_default_that_can_change_is_made_for_each_value() -> None:
    one, other = Schedule("m", "f", "* * * * *"), Schedule("m", "f", "* * * * *")
    assert one.args is not other.args
    assert inspect.signature(Schedule).parameters["args"].default == []
    assert [*inspect.signature(PullQueue).parameters] == [item.name for item in dataclasses.fields(PullQueue)]


@pytest.mark.parametrize(
    ("kind", "name", "hint"),
    [
        (I3TasksSettings, "default_max_retrys", "Did you mean 'default_max_retries'"),
        (I3TasksSettings, "zzz", "It has: namespace, default_queue"),
        (PullQueue, "queue", "Did you mean 'queue_name'"),
        (PushQueue, "endpoint", "Did you mean 'push_endpoint'"),
        (Schedule, "crontab", "Did you mean 'cron'"),
    ],
)
def test_an_unknown_name_is_answered_with_the_right_one(kind: type, name: str, hint: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=rf"{kind.__name__} has no setting '{name}'\. {hint}"):
        kind(**{name: 1})


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"namespace": ""}, "namespace must be 1 to 100 letters"),
    ({"namespace": "a/b"}, "namespace must be 1 to 100 letters.*not 'a/b'"),
    ({"namespace": None}, "namespace must be"),
    ({"namespace": "x" * 101}, "namespace must be 1 to 100"),
    ({"default_queue": None}, r"A queue must be a PullQueue\(queue_name, subscription_name\).*not None"),
    ({"default_queue": "default"}, "A queue must be a PullQueue"),
    ({"other_queues": PullQueue("a", "b")}, r"other_queues must be a tuple, for example \(PullQueue"),
    ({"other_queues": ("a",)}, "A queue must be a PullQueue"),
    ({"other_queues": (PullQueue("default", "b"),)}, "Two queues are named 'default'"),
    ({"other_queues": (PullQueue("a.b", "x"), PullQueue("a-b", "y"))}, "dots count as dashes"),
    ({"schedules": (("m", "f", "* * * * *"),)}, r"schedules must hold Schedule\(module_name"),
    ({"schedules": "x"}, "schedules must be a tuple"),
    ({"task_modules": "shop.jobs"}, r"task_modules must be a tuple, for example \('shop.jobs',\)"),
    ({"task_modules": (1,)}, "task_modules must hold names of modules.*not 1"),
    ({"retry_minimum_backoff_seconds": None}, "go together: set both, or both to None"),
    ({"retry_maximum_backoff_seconds": None}, "go together"),
    ({"retry_minimum_backoff_seconds": 60, "retry_maximum_backoff_seconds": 20}, "must not exceed"),
    ({"heartbeat_seconds": 20, "lease_seconds": 30}, "heartbeat_seconds must be at most half of lease_seconds"),
    ({"autoclean_older_than": 30}, "autoclean_older_than must be a timedelta or None"),
    ({"autoclean_older_than": timedelta.max}, "at most a thousand years"),
    ({"retention": 30}, r"retention must be a timedelta, or Retention\(succeeded=.*not 30"),
    ({"retention": timedelta(0)}, "retention must be a timedelta or None, longer than nothing"),
    (
        {"retention": timedelta(1), "autoclean_failed_older_than": timedelta(1)},
        "retention and autoclean_failed_older_than are both set. Leave one out",
    ),
    ({"default_max_retries": "3"}, "default_max_retries must be a whole number from 0 to 1000000,"),
    ({"default_max_retries": True}, "default_max_retries must be a whole number"),
    ({"ack_deadline_seconds": 5}, "ack_deadline_seconds must be a whole number from 10 to 600, not 5"),
    ({"lease_seconds": math.nan}, "lease_seconds must be a number"),
    ({"flush_seconds": None}, "flush_seconds must be a number"),
    ({"lost_after_seconds": 2 * 86_400}, "lost_after_seconds must be a number from 1 to 86400"),
    ({"endpoint": ""}, "endpoint must be a full URL such as 'https://shop.example.com/i3/'"),
    ({"endpoint": "shop.example.com/i3/"}, "endpoint must be a full URL"),
    ({"endpoint": URL}, "without tasks-push/ and without a query"),
    ({"endpoint": "https://shop.example.com/i3/?a=1"}, "without a query"),
    ({"service_account": ""}, "service_account must be the e-mail of a service account alone"),
    ({"service_account": "serviceAccount:push@p.iam.gserviceaccount.com"}, "e-mail of a service account alone"),
    ({"service_account": "push"}, "e-mail of a service account alone"),
    ({"audience": " "}, "audience must be text, such as the URL that is called, not ' '"),
    ({"audience": ("a", "b")}, "audience must be text"),
    ({"beat_token": ""}, "beat_token is empty"),
    ({"health_token": ""}, "health_token is empty"),
    ({"status_token": " \n"}, "status_token is empty"),
    ({"release": 14}, "release must be text, or None"),
    ({"release": "1.4\n"}, r"release must be at most 200 characters on one line, .* not '1.4\\n'"),
    ({"release": "a" * 201}, "release must be at most 200 characters"),
    ({"certificates_url": "www.googleapis.com"}, "certificates_url must be a full URL"),
    ({"other_queues": (PushQueue("mail", "web"),)}, "'mail' has no push_endpoint. Set endpoint='https://"),
    *(
        ({name: 1.5}, f"{name} must be a whole number")
        for name in ("concurrency", "threads", "database_lanes", "default_max_retries", "dead_letter_max_attempts")
    ),
    *(
        ({name: value}, f"{name} must be True or False, not {value!r}")
        for name in (
            "force_sync",
            "dead_letter",
            "run_queue_create_command_on_startup",
            "register_client_teardown",
            "allow_unverified",
            "cloud_run_verifies",
            "status_shows_values",
        )
        for value in ("False", None, 0)
    ),
    *(
        ({name: value}, f"{name} must be text, or None")
        for name in ("health_token", "status_token", "beat_token")
        for value in (7, b"secret", False)
    ),
]


@pytest.mark.parametrize(("arguments", "sentence"), WRONG, ids=[str(arguments)[:70] for arguments, _ in WRONG])
def test_a_wrong_value_is_refused_in_a_sentence(arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=sentence):
        I3TasksSettings(**arguments)


@pytest.mark.parametrize("name", [*RANGES])
def test_every_range_is_kept_and_holds_its_default(name: str) -> None:
    low, high = RANGES[name]
    default = inspect.signature(I3TasksSettings).parameters[name].default
    assert default is None or low <= default <= high
    for wrong in (low - 1, high + 1):
        with pytest.raises(ImproperlyConfigured, match=f"{name} must be a"):
            I3TasksSettings(**{name: wrong})


@pytest.mark.parametrize(
    "name", ["default_timeout_seconds", "task_retry_backoff_base_seconds", "autoclean_older_than", "health_token"]
)
def test_what_may_be_none_may_be_none(name: str) -> None:
    assert getattr(I3TasksSettings(**{name: None}), name) is None


def test_no_redelivery_policy_is_both_none() -> None:
    settings = I3TasksSettings(retry_minimum_backoff_seconds=None, retry_maximum_backoff_seconds=None)
    assert settings.retry_minimum_backoff_seconds is settings.retry_maximum_backoff_seconds is None


@pytest.mark.parametrize(
    "endpoint", ["", "/i3/tasks-push/", "shop.example.com/push", "ftp://a/b", 7, "https://", "http://["]
)
def test_a_push_endpoint_is_a_full_url(endpoint: Any) -> None:
    with pytest.raises(ImproperlyConfigured, match="push_endpoint of queue 'mail' must be a full URL such as"):
        PushQueue("mail", "web", endpoint)


@pytest.mark.parametrize("name", ["", "a b", "é", "-a", ".", None, 7, "projects/x"])
def test_names_suit_pubsub(name: Any) -> None:
    for make in (lambda: PullQueue(name, "b"), lambda: PullQueue("b", name), lambda: PushQueue("b", name, URL)):
        with pytest.raises(ImproperlyConfigured, match="name must be 1 to 100 letters"):
            make()


@pytest.mark.parametrize("fields", [{"service_account": "push"}, {"audience": ""}])
def test_a_queues_signer_is_checked_too(fields: Any) -> None:
    with pytest.raises(ImproperlyConfigured, match=f"{next(iter(fields))} of queue 'mail' must be"):
        PushQueue("mail", "web", URL, **fields)


def test_the_secret_for_beats_is_not_shown() -> None:
    secret = "a secret of this test"
    settings = I3TasksSettings(beat_token=secret, health_token=secret, status_token=secret)
    for text in (repr(settings), str(settings), f"{settings}", pformat(settings)):
        assert secret not in text
