"""The notice of unapplied migrations, with which processes that stay begin."""

import subprocess
import sys
from io import StringIO
from typing import Any

import pytest
from django.conf import settings
from django.core.management.base import BaseCommand
from django.db import connection, connections
from django.db.migrations.recorder import MigrationRecorder
from django.test.utils import override_settings

from i3tasks.management.commands import i3tasks_beat, i3tasks_dispatch, i3tasks_worker
from tests.support.databases import child_environment

pytestmark = pytest.mark.django_db

SHOW_MODULES = """
import django, sys
django.setup()
from django.core.management import call_command
call_command("i3tasks_beat", once=True, verbosity=0, skip_checks=False)
print(sorted(name for name in sys.modules if ".migrations.0" in name))
"""


def noticed(command: type[BaseCommand] = i3tasks_worker.Command) -> str:
    said = StringIO()
    command(stdout=said).check_migrations()
    return said.getvalue()


@pytest.mark.parametrize("module", [i3tasks_beat, i3tasks_dispatch, i3tasks_worker])
@pytest.mark.parametrize("app", ["i3tasks", "auth"])
def test_a_migration_that_waits_is_noticed(module: Any, app: str) -> None:
    assert noticed(module.Command) == ""
    latest = MigrationRecorder.Migration.objects.filter(app=app).order_by("name").last()
    MigrationRecorder(connection).record_unapplied(app, latest.name)
    said = noticed(module.Command)
    assert "You have 1 unapplied migration(s)." in said
    assert f"the migrations for app(s): {app}." in said


def test_a_squashed_migration_that_is_applied_in_its_parts_is_not_missing() -> None:
    MigrationRecorder(connection).record_unapplied("i3tasks", "0002_squashed_0006")
    assert MigrationRecorder.Migration.objects.filter(app="i3tasks", name="0006_taskexecution_uuid").exists()
    assert noticed() == ""


def test_a_database_without_records_lacks_all() -> None:
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE django_migrations RENAME TO kept")
    try:
        assert "i3tasks" in noticed()
    finally:
        with connection.cursor() as cursor:
            cursor.execute("ALTER TABLE kept RENAME TO django_migrations")


def test_an_app_whose_migrations_are_off_has_none_to_apply() -> None:
    MigrationRecorder.Migration.objects.filter(app="auth").delete()
    assert "auth" in noticed()
    with override_settings(MIGRATION_MODULES={"auth": None, "admin": None}):
        assert noticed() == ""


def test_an_app_that_is_one_file_or_has_no_migrations_has_none_to_apply() -> None:
    with override_settings(INSTALLED_APPS=[*settings.INSTALLED_APPS, "tests.shop.tasks", "tests.faults"]):
        assert noticed() == ""
        MigrationRecorder.Migration.objects.filter(app="auth").delete()
        assert "auth" in noticed()


@pytest.mark.parametrize("missing", ["missing_for_sure", "tests.missing_for_sure", "missing_for_sure.migrations"])
def test_a_module_of_migrations_that_is_missing_is_an_error_at_the_start_as_in_django(missing: str) -> None:
    with override_settings(MIGRATION_MODULES={"auth": missing}), pytest.raises(ModuleNotFoundError, match="missing"):
        noticed()


class NoMigrations:
    """What projects set in place of a dict to have their tests run without migrations."""

    def __contains__(self, label: str) -> bool:
        return True

    def __getitem__(self, label: str) -> None:
        return None


def test_migrations_may_be_switched_off_as_a_whole() -> None:
    MigrationRecorder.Migration.objects.all().delete()
    assert "i3tasks" in noticed()
    with override_settings(MIGRATION_MODULES=NoMigrations()):
        assert noticed() == ""


def test_without_a_default_database_there_is_nothing_to_notice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("i3tasks.management.unapplied.DEFAULT_DB_ALIAS", "dummy")
    monkeypatch.setattr("django.core.management.base.DEFAULT_DB_ALIAS", "dummy")
    monkeypatch.setitem(
        connections.databases, "dummy", {**connection.settings_dict, "ENGINE": "django.db.backends.dummy"}
    )
    assert noticed() == ""


@pytest.mark.django_db(transaction=True)
def test_what_is_applied_is_not_imported() -> None:
    """The migrations of a project can be many, and would stay in the memory of each worker."""
    command = [sys.executable, "-c", SHOW_MODULES]
    done = subprocess.run(command, env=child_environment(), capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
