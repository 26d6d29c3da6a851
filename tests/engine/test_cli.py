"""`i3tasks`, the console script: a thin door to the management commands."""

from __future__ import annotations

from pathlib import Path

import pytest
from django.core.management import load_command_class

import i3tasks
from i3tasks.cli import COMMANDS, main
from tests.support.children import COMMAND, Child, Children

pytestmark = pytest.mark.django_db(transaction=True)

MANAGE = """
import os
if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "{settings}")
    from django.core.management import execute_from_command_line
    execute_from_command_line()
"""


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    for command in ("run-worker", "emulator", "ensure-pubsub"):
        assert f"\n  {command} " in shown


def test_without_a_command_it_shows_the_help_and_fails(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "usage: i3tasks COMMAND" in capsys.readouterr().out


def test_an_unknown_command_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run-workers"]) == 2
    shown = capsys.readouterr()
    assert "no command 'run-workers'" in shown.err
    assert shown.out == ""


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == i3tasks.__version__


@pytest.mark.parametrize("name", COMMANDS)
def test_usage_names_the_command_that_was_typed(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main([name, "--help"])

    shown = capsys.readouterr().out
    assert end.value.code == 0
    assert shown.startswith(f"usage: i3tasks {name} ")
    management = load_command_class("i3tasks", COMMANDS[name][0]).create_parser("manage.py", COMMANDS[name][0])
    assert management.format_usage().startswith(f"usage: manage.py {COMMANDS[name][0]} ")


@pytest.mark.parametrize("missing", ["project", "app", "settings", "tables"])
def test_what_is_missing_is_one_sentence(children: Children, tmp_path: Path, missing: str) -> None:
    (tmp_path / "bare.py").write_text(BARE.format(apps=["i3tasks"] if missing == "tables" else []))
    settings = {"project": [], "settings": ["--settings", "no_such_settings"]}.get(missing, ["--settings", "bare"])
    wanted = {
        "project": "Which Django project? Run this in the folder of manage.py",
        "app": "i3tasks is not installed: add 'i3tasks' to INSTALLED_APPS of bare.",
        "settings": "There is no settings module 'no_such_settings' on the path",
        "tables": "CommandError: The database lacks tables or columns of i3tasks: run `manage.py migrate` first.",
    }

    child = Child([COMMAND, "list", *settings], without_settings(children), tmp_path)

    assert child.ends() == (2 if missing == "project" else 1)
    [line] = child.output.splitlines()
    assert line.startswith(wanted[missing])


def test_help_needs_no_project(children: Children, tmp_path: Path) -> None:
    child = Child([COMMAND, "discard", "--help"], without_settings(children), tmp_path)
    assert child.ends() == 0
    assert child.output.startswith("usage: i3tasks discard ")


BARE = """
SECRET_KEY, USE_TZ, INSTALLED_APPS = "x", True, {apps}
DATABASES = {{"default": {{"ENGINE": "django.db.backends.sqlite3", "NAME": "bare.sqlite3"}}}}
SILENCED_SYSTEM_CHECKS = ["i3tasks.W001"]
"""


def without_settings(children: Children) -> dict[str, str]:
    environment = children.environment()
    del environment["DJANGO_SETTINGS_MODULE"]
    return environment


def test_without_settings_it_says_what_to_do(children: Children, tmp_path: Path) -> None:
    child = Child([COMMAND, "run-worker"], without_settings(children), tmp_path)
    assert child.ends() == 2
    assert "DJANGO_SETTINGS_MODULE" in child.output
    assert "Traceback" not in child.output


def test_the_settings_are_those_that_manage_py_names(children: Children, tmp_path: Path) -> None:
    (tmp_path / "manage.py").write_text(MANAGE.format(settings="tests.process_settings"))
    child = Child([COMMAND, "ensure-pubsub", "--dry-run"], without_settings(children), tmp_path)
    assert child.ends() == 0, child.output
    assert "would be made" in child.output


def test_the_option_wins_over_manage_py(children: Children, tmp_path: Path) -> None:
    (tmp_path / "manage.py").write_text(MANAGE.format(settings="no.such.settings"))
    arguments = [COMMAND, "ensure-pubsub", "--dry-run", "--settings", "tests.process_settings"]
    child = Child(arguments, without_settings(children), tmp_path)
    assert child.ends() == 0, child.output


def test_ensure_pubsub_only_reports_in_a_dry_run_then_makes_then_finds_nothing_to_do(children: Children) -> None:
    def ensured(*options: str) -> str:
        child = children.run(COMMAND, "ensure-pubsub", *options)
        assert child.ends() == 0, child.output
        return child.output

    planned = ensured("--dry-run")
    assert "[dry-run] " in planned
    assert "test.default.worker" in planned
    assert planned == ensured("--dry-run"), "nothing was made"
    made = ensured()
    assert made.replace("made", "would be made").splitlines()[-1] == planned.splitlines()[-1].removeprefix("[dry-run] ")
    assert ensured().splitlines()[-1] == "0 changes made."


def test_an_option_that_is_none_and_one_that_is_wrong_fail_in_a_sentence(children: Children) -> None:
    for options in (["--nonsense"], ["--concurrency", "0"], ["--queue", "nope"]):
        child = children.run(COMMAND, "run-worker", *options)
        assert child.ends() in (1, 2)
        assert options[-1].strip("-") in child.output or "positive number" in child.output
        assert "Traceback" not in child.output
