"""Each system check: when it speaks, and that it says what to write."""

import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from django.conf import settings
from django.core.checks import CheckMessage, registry
from django.db import connection
from django.test import override_settings

from i3tasks import checks
from i3tasks import registry as tasks
from i3tasks.conf import get_config
from i3tasks.registry import TaskOptions
from i3tasks.types import I3TasksSettings, PullQueue, PushQueue, Schedule


@pytest.fixture(autouse=True)
def fresh_config() -> Iterator[None]:
    yield
    get_config.cache_clear()


def speaking(check: Any) -> dict[str | None, CheckMessage]:
    return {item.id: item for item in check(app_configs=None, databases=None)}


def test_all_are_registered() -> None:
    registered = set(registry.registry.get_checks(include_deployment_checks=True))
    assert {getattr(checks, name) for name in checks.__all__} <= registered


def test_the_suites_own_settings_are_fine() -> None:
    for check in (checks.check_settings, checks.check_time_zones, checks.check_engine):
        assert speaking(check) == {}


@override_settings(PUBSUB_CONFIG={"EMULATR": True})
def test_e001_a_setting_that_cannot_be_read() -> None:
    assert "Did you mean 'EMULATOR'?" in speaking(checks.check_settings)["i3tasks.E001"].msg


@override_settings(I3TASKS=I3TasksSettings(other_queues=(PullQueue("push", "x"),)))
def test_e002_a_task_whose_queue_is_missing() -> None:
    # Other tests of the same run define tasks for that queue, too.
    [found] = [item for item in checks.check_settings() if "tests.shop.tasks.crunch" in item.msg]
    assert (found.id, found.level) == ("i3tasks.E002", 40)
    assert "'heavy'" in found.msg
    assert found.hint == "Add it to other_queues. There are: default, push."


def test_w003_a_task_that_names_another_subscription_than_its_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    def define(**options: str) -> str:
        monkeypatch.setattr(tasks.lookup, "_tasks", {})
        tasks.register(test_w003_a_task_that_names_another_subscription_than_its_queue, TaskOptions(**options))
        found = speaking(checks.check_subscriptions).get("i3tasks.W003")
        return "" if found is None else f"{found.msg} {found.hint}"

    queue = get_config().queue(None).queue
    assert define(subscription_name=queue.subscription_name) == define() == ""
    assert f"received through {queue.subscription_name!r}" in define(subscription_name="another")
    assert "make a subscription" in define(subscription_name=queue.subscription_name, topic_name="own")


@override_settings(PUBSUB_CONFIG=None, DEBUG=False)
def test_w001_no_pubsub_config_outside_of_debug() -> None:
    assert "PUBSUB_CONFIG = {'PROJECT_ID'" in str(speaking(checks.check_settings)["i3tasks.W001"].hint)
    with override_settings(DEBUG=True):
        assert speaking(checks.check_settings) == {}


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"func_name": "gone"}, "No task tests.shop.tasks.gone"),
        ({"args": [1]}, "args and kwargs don't fit"),
        ({"queue_name": "nowhere"}, "no queue 'nowhere'"),
    ],
)
def test_e005_a_schedule_that_cannot_run(fields: dict[str, Any], said: str) -> None:
    values = {"module_name": "tests.shop.tasks", "func_name": "add", "cron": "@daily", "args": [1, 2], "name": "mine"}
    for enabled in (True, False):
        schedule = Schedule(**{**values, **fields, "enabled": enabled})
        with override_settings(I3TASKS=I3TasksSettings(schedules=(schedule,))):
            found = checks.check_schedules()
        assert [item.id for item in found] == ["i3tasks.E006"] * enabled
        assert all("'mine'" in item.msg and said in item.msg for item in found)
    with override_settings(I3TASKS=I3TasksSettings(schedules=(Schedule(**values),))):
        assert checks.check_schedules() == []


@override_settings(USE_TZ=False)
def test_e003_naive_times() -> None:
    assert "USE_TZ = True" in speaking(checks.check_time_zones)["i3tasks.E003"].msg


def test_e004_another_kind_of_database(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "vendor", "mysql", raising=False)
    found = speaking(checks.check_engine)["i3tasks.E004"]
    assert "PostgreSQL and SQLite" in found.msg
    assert "mysql" in found.msg
    assert "DATABASE_ROUTERS" in str(found.hint)


@pytest.mark.parametrize("missing", ["transaction_mode", "init_command"])
def test_w002_sqlite_as_django_opens_it(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    monkeypatch.setattr(connection, "vendor", "sqlite", raising=False)
    options = {"transaction_mode": "IMMEDIATE", "init_command": "PRAGMA journal_mode=WAL"}
    monkeypatch.setitem(connection.settings_dict, "OPTIONS", options)
    assert speaking(checks.check_engine) == {}
    del options[missing]
    monkeypatch.setattr(sys, "argv", ["manage.py", "migrate"])
    assert speaking(checks.check_engine) == {}, "other commands do not repeat it"
    monkeypatch.setattr(sys, "argv", ["manage.py", "check"])
    assert "PRAGMA journal_mode=WAL" in str(speaking(checks.check_engine)["i3tasks.W002"].hint)


def test_a_check_names_each_task_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with override_settings(I3TASKS=I3TasksSettings()):
        named = [item.msg.split()[2] for item in checks.check_settings()]
    queued = [spec.path for spec in tasks.all_tasks() if spec.options.queue_name]
    assert named == queued
    assert len(set(named)) == len(named) >= 2


PRODUCTION = {"PROJECT_ID": "shop"}
TOKENS = {"health_token": "a long secret", "status_token": "another long secret"}


@pytest.mark.parametrize(
    ("pubsub", "settings", "expected"),
    [
        (None, TOKENS, {"i3tasks.E007"}),
        ({"EMULATOR": True}, TOKENS, {"i3tasks.E007"}),
        ({"EMULATOR": True}, {}, {"i3tasks.E007", "i3tasks.W004"}),
        (PRODUCTION, TOKENS, set()),
        (PRODUCTION, {"health_token": "a long secret"}, set()),  # which guards status, too
        (PRODUCTION, {"status_token": "a long secret"}, {"i3tasks.W004"}),
        (PRODUCTION, {**TOKENS, "allow_unverified": True}, {"i3tasks.W005"}),
    ],
)
def test_doors_that_are_open_in_production(
    pubsub: Any, settings: dict[str, Any], expected: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PUBSUB_EMULATOR_HOST", raising=False)
    with override_settings(DEBUG=False, PUBSUB_CONFIG=pubsub, I3TASKS=I3TasksSettings(**settings)):
        assert set(speaking(checks.check_endpoints)) == expected
        with override_settings(DEBUG=True):
            assert speaking(checks.check_endpoints) == {}
        with override_settings(ROOT_URLCONF="django.contrib.auth.urls"):
            assert speaking(checks.check_endpoints) == {}


def test_doors_are_looked_at_by_check_deploy_only() -> None:
    assert checks.check_endpoints in registry.registry.get_checks(include_deployment_checks=True)
    assert checks.check_endpoints not in registry.registry.get_checks()


# ---------------------------------------------------------------------------------------------- push, with --deploy

BASE = "https://shop.example.com/i3/"
PUSHER = "push@shop.iam.gserviceaccount.com"


def said_of_push(
    monkeypatch: pytest.MonkeyPatch, pubsub: Any = None, **settings: Any
) -> dict[str | None, CheckMessage]:
    """What `check --deploy` says of a project with one push queue."""
    monkeypatch.delenv("PUBSUB_EMULATOR_HOST", raising=False)
    values = {"other_queues": (PushQueue("mail", "web"),), "endpoint": BASE, **settings}
    with override_settings(PUBSUB_CONFIG=pubsub or {"PROJECT_ID": "real"}, I3TASKS=I3TasksSettings(**values)):
        return speaking(checks.check_push)


def define(monkeypatch: pytest.MonkeyPatch, **options: Any) -> None:
    monkeypatch.setattr(tasks.lookup, "_tasks", {})
    tasks.register(define, TaskOptions(**options))


def test_it_is_shown_with_deploy_only() -> None:
    assert checks.check_push in registry.registry.get_checks(include_deployment_checks=True)
    assert checks.check_push not in registry.registry.get_checks()


@pytest.mark.parametrize(
    "settings",
    [
        {"service_account": PUSHER},
        {"other_queues": (PushQueue("mail", "web", service_account=PUSHER),)},
        {"allow_unverified": True},
        {"other_queues": (), "endpoint": None},
    ],
    ids=str,
)
def test_a_push_queue_that_works(monkeypatch: pytest.MonkeyPatch, settings: Any) -> None:
    define(monkeypatch)
    assert said_of_push(monkeypatch, **settings) == {}


def test_e008_and_w006_pushes_and_beats_that_would_be_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    define(monkeypatch)
    found = said_of_push(monkeypatch)
    assert set(found) == {"i3tasks.E008", "i3tasks.W006"}
    assert "'mail'" in found["i3tasks.E008"].msg
    assert "service_account" in str(found["i3tasks.E008"].hint)
    assert set(said_of_push(monkeypatch, beat_token="a secret of this test")) == {"i3tasks.E008"}
    without_url = (PushQueue("mail", "web", "https://shop.example.com/elsewhere/", PUSHER),)
    assert set(said_of_push(monkeypatch, endpoint=None, other_queues=without_url)) == {"i3tasks.W006"}
    assert said_of_push(monkeypatch, {"EMULATOR": True, "HOST": "127.0.0.1:1"}) == {}


@pytest.mark.parametrize(
    ("options", "settings", "is_said"),
    [
        ({"queue_name": "mail", "timeout": 600}, {}, False),
        ({"queue_name": "mail", "timeout": 600.5}, {}, True),
        ({"queue_name": "mail"}, {}, False),
        ({"queue_name": "mail"}, {"default_timeout_seconds": 900}, True),
        ({"queue_name": "mail", "timeout": 60}, {"default_timeout_seconds": 900}, False),
        ({"timeout": 900}, {}, False),
        ({"timeout": 900}, {"default_queue": PushQueue("default", "web"), "other_queues": ()}, True),
    ],
)
def test_e009_a_task_that_runs_longer_than_a_push(
    monkeypatch: pytest.MonkeyPatch, options: Any, settings: Any, is_said: bool
) -> None:
    define(monkeypatch, **options)
    found = said_of_push(monkeypatch, service_account=PUSHER, **settings)
    assert set(found) == ({"i3tasks.E009"} if is_said else set())
    if is_said:
        assert "600 s" in found["i3tasks.E009"].msg
        assert "define" in found["i3tasks.E009"].msg


def test_e010_pubsub_pushes_to_https_only(monkeypatch: pytest.MonkeyPatch) -> None:
    define(monkeypatch)
    found = said_of_push(monkeypatch, service_account=PUSHER, endpoint="http://shop.example.com/i3/")
    assert set(found) == {"i3tasks.E010"}


@pytest.mark.parametrize(
    ("pool", "is_enough"),
    [(True, False), ({"min_size": 2, "max_size": 5}, False), ({"min_size": 50}, True), ({"max_size": 27}, False)],
)
def test_a_pool_smaller_than_a_worker_needs_is_a_warning(
    pool: Any, is_enough: bool, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.I3TASKS = replace(settings.I3TASKS, threads=8, database_lanes=16)
    monkeypatch.setitem(connection.settings_dict, "OPTIONS", {"pool": pool})
    found = checks.check_pool()
    assert bool(found) is not is_enough
    assert all("'max_size': 28" in str(problem.hint) for problem in found)


def without(values: list[str], *parts: str) -> list[str]:
    return [value for value in values if not any(part in value for part in parts)]


def test_w011_a_board_whose_pages_could_not_be_shown() -> None:
    with override_settings(ROOT_URLCONF="tests.urls"):
        assert checks.check_board() == []
        for settings_with_gap, named in [
            ({"INSTALLED_APPS": without(settings.INSTALLED_APPS, "staticfiles")}, "'django.contrib.staticfiles' in"),
            ({"INSTALLED_APPS": without(settings.INSTALLED_APPS, "messages")}, "'django.contrib.messages' in"),
            ({"MIDDLEWARE": without(settings.MIDDLEWARE, "AuthenticationMiddleware")}, "AuthenticationMiddleware' in"),
            ({"MIDDLEWARE": without(settings.MIDDLEWARE, "SessionMiddleware")}, "SessionMiddleware' in MIDDLEWARE"),
            ({"TEMPLATES": []}, "'APP_DIRS': True"),
        ]:
            with override_settings(**settings_with_gap):
                [found] = checks.check_board()
            assert (found.id, named in found.msg) == ("i3tasks.W011", True), found.msg
    with override_settings(ROOT_URLCONF="django.contrib.auth.urls", TEMPLATES=[]):
        assert checks.check_board() == [], "no URL leads to it"
