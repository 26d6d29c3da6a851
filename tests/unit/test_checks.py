"""Each system check: when it speaks, and that it says what to write."""

from collections.abc import Iterator
from typing import Any

import pytest
from django.core.checks import CheckMessage, registry
from django.db import connection
from django.test import override_settings

from i3tasks import checks
from i3tasks import registry as tasks
from i3tasks.conf import get_config
from i3tasks.types import I3TasksSettings, PullQueue, Schedule


@pytest.fixture(autouse=True)
def fresh_config() -> Iterator[None]:
    yield
    get_config.cache_clear()


def speaking(check: Any) -> dict[str | None, CheckMessage]:
    return {item.id: item for item in check(app_configs=None, databases=None)}


def test_all_are_registered() -> None:
    registered = {check.__name__ for check in registry.registry.get_checks() if check.__module__ == checks.__name__}
    assert registered >= {"check_settings", "check_schedules", "check_time_zones", "check_engine"}


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
    assert "PRAGMA journal_mode=WAL" in str(speaking(checks.check_engine)["i3tasks.W002"].hint)


def test_a_check_names_each_task_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with override_settings(I3TASKS=I3TasksSettings()):
        named = [item.msg.split()[2] for item in checks.check_settings()]
    queued = [spec.path for spec in tasks.all_tasks() if spec.options.queue_name]
    assert named == queued
    assert len(set(named)) == len(named) >= 2
