"""`i3tasks health`, `i3tasks status` and `i3tasks clean`: what they print, and how they end."""

import io
import json
import re
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.test import Client, override_settings

from i3tasks.cli import COMMANDS
from i3tasks.models import TaskExecution
from i3tasks.types import I3TasksSettings
from tests.shop.tasks import add, fail
from tests.support.history import a_try, ago, execution, finished

pytestmark = pytest.mark.django_db


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def run(command: str, *arguments: str, stream: io.StringIO | None = None) -> tuple[str, int]:
    """What a command prints, and its exit code. Called as the short command does it."""
    stream = stream or io.StringIO()
    try:
        call_command(COMMANDS[command][0], *arguments, stdout=stream)
    except SystemExit as end:
        return stream.getvalue(), int(str(end.code))
    return stream.getvalue(), 0


def test_health_in_words() -> None:
    a_try("success", ago(minutes=1))
    output, code = run("health")

    assert code == 0
    assert output.startswith("ok\n")
    assert re.search(r"app\.tasks\.send_email +0 +0 +1 +0$", output, re.MULTILINE)


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_a_critical_health_ends_with_1(options: list[str]) -> None:
    a_try("running", ago(minutes=16))

    output, code = run("health", *options)

    assert code == 1
    assert "1 tries running for more than 15 minutes" in output


def test_a_warning_ends_with_0() -> None:
    for _ in range(6):
        a_try("failed")

    output, code = run("health")

    assert (code, output.splitlines()[0]) == (0, "warning")


def test_healths_json_is_the_endpoints(client: Client) -> None:
    a_try("failed", ago(minutes=1))
    output, _ = run("health", "--json")

    ours, theirs = json.loads(output), client.get("/i3/tasks-health/").json()
    for at in ("now", "counted_since"):  # the one comes some milliseconds after the other
        ours.pop(at), theirs.pop(at)
    assert ours == theirs


def test_status_in_words_and_as_json(client: Client, settings: Any) -> None:
    settings.I3TASKS = replace(settings.I3TASKS, status_shows_values=True)
    with pytest.raises(ValueError, match="broken"):
        fail.sync_run("broken")
    row = TaskExecution.objects.get()

    for key in (str(row.pk), str(row.uuid), row.uuid.hex):
        output, code = run("status", key)
        assert code == 0
        assert output.startswith("failed: tests.shop.tasks.fail('broken')\n")
        assert re.search(r"try 1: failed .*, took .*: ValueError: broken$", output, re.MULTILINE)

    output, _ = run("status", str(row.pk), "--json")
    assert json.loads(output) == client.get(f"/i3/tasks-status/{row.pk}/").json()


def test_status_of_what_waits_and_of_what_runs() -> None:
    assert "try 1: waits for a worker" in run("status", str(a_try("pending").task_execution_id))[0]
    assert "try 1: runs, " in run("status", str(a_try("running").task_execution_id))[0]


@pytest.mark.parametrize("key", ["1", "00000000-0000-7000-8000-000000000000"])
def test_status_of_nothing_ends_with_1(key: str) -> None:
    with pytest.raises(CommandError, match=f"There is no execution {key}") as raised:
        run("status", key)
    assert raised.value.returncode == 1
    assert run("status", key, "--json") == ('{\n  "status": "not_found"\n}\n', 1)


def test_a_status_that_is_unknown_ends_with_1() -> None:
    assert run("status", str(execution().pk))[1] == 1


def test_status_wants_an_id_or_a_uuid() -> None:
    with pytest.raises(CommandError, match="'x' is neither an id, nor a uuid"):
        run("status", "x")


def test_clean_says_how_many_as_documented() -> None:
    for days in (8, 9, 31):
        finished("success", ago(days=days))

    assert run("clean", "--days", "30", "--dry-run") == ("[dry-run] 1 TaskExecution rows would be deleted.\n", 0)
    assert TaskExecution.objects.count() == 3
    assert run("clean", "--days", "30") == ("Deleted 1 TaskExecution rows.\n", 0)
    assert run("clean", "--days", "7.5", "--batch-size", "1") == ("Deleted 2 TaskExecution rows.\n", 0)


def test_clean_keeps_failures_for_longer() -> None:
    kept = finished("failed", ago(days=8))
    finished("success", ago(days=8))

    run("clean", "--days", "7", "--failed-days", "30")

    assert TaskExecution.objects.get() == kept
    assert run("clean", "--failed-days", "7")[0] == "Deleted 1 TaskExecution rows.\n"


@override_settings(I3TASKS=I3TasksSettings(autoclean_older_than=timedelta(days=7)))
def test_clean_goes_by_the_settings() -> None:
    finished("success", ago(days=8))
    finished("success", ago(days=6))

    assert run("clean")[0] == "Deleted 1 TaskExecution rows.\n"
    call_command("i3tasks_clean", days=5, stdout=io.StringIO())
    assert not TaskExecution.objects.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Pass --days, or set retention in I3TASKS"),
        (["--days", "-1"], "--days must be from 0"),
        (["--days", "nan"], "--days must be from 0"),
        (["--days", "1e9"], "--days must be from 0"),
        (["--failed-days", "-1"], "--failed-days must be from 0"),
        (["--days", "1", "--batch-size", "0"], "--batch-size must be at least 1"),
    ],
)
def test_clean_refuses_what_makes_no_sense(arguments: list[str], message: str) -> None:
    finished("success", ago(days=4000))

    with pytest.raises(CommandError, match=message):
        run("clean", *arguments)
    assert TaskExecution.objects.exists()


def test_zero_days_is_all_that_has_ended() -> None:
    add.sync_run(1, 2)
    waiting = a_try("pending").task_execution

    run("clean", "--days", "0")

    assert TaskExecution.objects.get() == waiting


def test_clean_shows_a_bar_on_a_terminal_only() -> None:
    def clean(stream: io.StringIO) -> Any:
        for _ in range(4):
            finished("success", ago(days=8))
        return run("clean", "--days", "7", "--batch-size", "2", stream=stream)[0]

    shown = clean(Terminal())
    assert f"[{'#' * 18}{'-' * 18}] 2 of 4" in shown
    assert f"[{'#' * 36}] 4 of 4\nDeleted 4" in shown
    assert "#" not in clean(io.StringIO())


@pytest.mark.postgres
@pytest.mark.django_db(transaction=True)
def test_what_the_database_refuses_is_said_in_a_sentence() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SET default_transaction_read_only = on")
        try:
            with pytest.raises(CommandError, match=r"The database refused: cannot .* in a read-only tr"):
                call_command("i3tasks_pause_queue", "default")
        finally:
            cursor.execute("SET default_transaction_read_only = off")
