"""Mistakes in settings end in their sentence, in real processes, and tasks that no worker would find are said."""

import os
import re
import subprocess
import sys
from pathlib import Path

import django
import pytest

SETTINGS = """
from i3tasks.types import I3TasksSettings
SECRET_KEY = "x"
USE_TZ = True
DATABASES = {{"default": {{"ENGINE": "django.db.backends.sqlite3", "NAME": "db.sqlite3"}}}}
INSTALLED_APPS = ["i3tasks"{apps}]
DEBUG = True
{more}
"""
MANAGE = """
import os, sys
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shop.settings")
from django.core.management import execute_from_command_line
execute_from_command_line(sys.argv)
"""
TASKS = "from i3tasks import task\n@task\ndef send() -> None: ...\n"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "manage.py").write_text(MANAGE)
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "__init__.py").touch()
    (tmp_path / "shop" / "tasks.py").write_text(TASKS)
    write(tmp_path)
    return tmp_path


def write(project: Path, *, apps: str = "", more: str = "") -> None:
    (project / "shop" / "settings.py").write_text(SETTINGS.format(apps=apps, more=more))


def run(project: Path, *command: str) -> subprocess.CompletedProcess[str]:
    hidden = ("DJANGO_SETTINGS_MODULE", "PUBSUB_EMULATOR_HOST")
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    return subprocess.run(
        [sys.executable, *command],
        cwd=project,
        env=environment,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


@pytest.mark.parametrize(
    ("command", "more", "said"),
    [
        ("health", "I3TASKS = I3TasksSettings(namespce='x')", "Did you mean 'namespace'?"),
        ("run-worker", "I3TASKS = I3TasksSettings(concurrency='many')", "concurrency must be a whole number"),
        ("run-worker", "PUBSUB_CONFIG = {'EMULATR': True}", "Did you mean 'EMULATOR'?"),
        ("emulator --seed settings", "I3TASKS = {}", "I3TASKS must be an I3TasksSettings"),
    ],
)
def test_the_short_commands_say_the_sentence_alone(project: Path, command: str, more: str, said: str) -> None:
    write(project, more=more)
    ended = run(project, str(Path(sys.executable).with_name("i3tasks")), *command.split())
    assert ended.returncode == 1
    assert said in ended.stderr
    assert "Traceback" not in ended.stderr
    assert "Exception ignored" not in ended.stderr


TYPO = "I3TASKS = I3TasksSettings(namespce='x')"
NO_MODULE = "I3TASKS = I3TasksSettings(task_modules=('shop.nope',))"
WITH_BACKEND = f"TASKS = {{'default': {{'BACKEND': 'i3tasks.backend.PubSubBackend'}}}}; {TYPO}"
FRAMEWORK = "" if django.VERSION >= (6, 0) else ", 'django_tasks'"


@pytest.mark.parametrize("more", ["PUBSUB_CONFIG = {'EMULATR': True}", "I3TASKS = {}", TYPO, NO_MODULE, WITH_BACKEND])
def test_manage_py_says_what_checks_say(project: Path, more: str) -> None:
    write(project, apps=FRAMEWORK, more=more)
    ended = run(project, "manage.py", "check")
    assert ended.returncode == 1
    assert "i3tasks.E001" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert "Exception ignored" not in ended.stderr


@pytest.mark.parametrize("command", ["manage.py migrate", "manage.py i3tasks_worker", "-m i3tasks status 1"])
def test_a_typo_in_the_settings_ends_a_command_in_a_sentence(project: Path, command: str) -> None:
    write(project, more=TYPO)
    ended = run(project, *command.split())
    assert ended.returncode == 1
    assert "(i3tasks.E001) I3TasksSettings has no setting 'namespce'. Did you mean 'namespace'?" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_options_of_a_backend_that_are_wrong_end_a_command_in_a_sentence_too(project: Path) -> None:
    write(
        project,
        apps=f"{FRAMEWORK}, 'shop'",
        more="TASKS = {'default': {'BACKEND': 'i3tasks.backend.PubSubBackend', 'OPTIONS': {'max_retires': 3}}}",
    )
    (project / "shop" / "tasks.py").write_text(
        f"from {'django.tasks' if django.VERSION >= (6, 0) else 'django_tasks'} import task\n@task\ndef send(): ...\n"
    )
    for command in ("manage.py check", "-m i3tasks health"):
        ended = run(project, *command.split())
        assert ended.returncode == 1
        assert "(i3tasks.E022) OPTIONS of TASKS['default'] takes" in ended.stderr
        assert "Traceback" not in ended.stderr


def test_a_module_that_is_not_there_is_named_where_there_is_no_command(project: Path) -> None:
    write(project, more=NO_MODULE)
    (project / "serve.py").write_text("import os; os.environ['DJANGO_SETTINGS_MODULE'] = 'shop.settings'\n" + SET_UP)
    ended = run(project, "serve.py")
    assert ended.stderr.splitlines()[-1].endswith(
        "task_modules of I3TASKS names 'shop.nope', and there is no such module. Correct the name."
    )
    write(project, more="I3TASKS = I3TasksSettings(task_modules=('shop.tasks',))")
    (project / "shop" / "tasks.py").write_text("import nothing_of_this_name\n")
    assert "No module named 'nothing_of_this_name'" in run(project, "manage.py", "check").stderr


def test_a_command_that_runs_no_checks_says_it_and_goes_on(project: Path) -> None:
    write(project, more=TYPO)
    ended = run(project, "manage.py", "shell", "-c", "print('here')")
    assert (ended.returncode, ended.stdout.splitlines()[-1]) == (0, "here")
    said = [line for line in ended.stderr.splitlines() if line.startswith("i3tasks: ")]
    assert said == [
        "i3tasks: I3TasksSettings has no setting 'namespce'. Did you mean 'namespace'? "
        f"It is in {project}/shop/settings.py, line 8."
    ]


@pytest.mark.parametrize(
    "more",
    [
        "I3TASKS = I3TasksSettings(other_queues=(PullQueue('a'),))",
        "import dataclasses; I3TASKS = dataclasses.replace(I3TasksSettings(other_queues=[PullQueue('a')]))",
    ],
)
def test_a_web_process_says_where_the_mistake_is(project: Path, more: str) -> None:
    write(project, more=f"from i3tasks.types import PullQueue\n{more}")
    (project / "serve.py").write_text("import os; os.environ['DJANGO_SETTINGS_MODULE'] = 'shop.settings'\n" + SET_UP)
    ended = run(project, "serve.py")
    *_, sentence, place = ended.stderr.splitlines()
    assert sentence.endswith("PullQueue needs queue_name, subscription_name; subscription_name is missing.")
    assert re.fullmatch(r"It is in .*shop/settings\.py, line \d+\.", place)


SET_UP = "import django; django.setup()\n"
SEND = SET_UP + "from shop.tasks import send\nsend.s()\nsend.delay()"


def test_tasks_beside_settings_that_no_worker_would_find(project: Path) -> None:
    checked = run(project, "manage.py", "check")
    assert "i3tasks.W008" in checked.stderr
    assert "'shop' is no installed app" in checked.stderr
    (project / "send.py").write_text("import os; os.environ['DJANGO_SETTINGS_MODULE'] = 'shop.settings'\n" + SEND)
    sent = run(project, "send.py")
    assert "UnknownTaskError: No worker would find the task shop.tasks.send" in sent.stderr
    assert "INSTALLED_APPS" in sent.stderr


@pytest.mark.parametrize(
    ("apps", "more"), [(", 'shop'", ""), ("", "I3TASKS = I3TasksSettings(task_modules=('shop.tasks',))")]
)
def test_tasks_beside_settings_that_workers_find(project: Path, apps: str, more: str) -> None:
    write(project, apps=apps, more=more)
    assert "W008" not in run(project, "manage.py", "check").stderr
    (project / "send.py").write_text("import os; os.environ['DJANGO_SETTINGS_MODULE'] = 'shop.settings'\n" + SEND)
    assert "no such table" in run(project, "send.py").stderr, "it has come to the database"


def test_another_tasks_py_is_none_of_ours(project: Path) -> None:
    (project / "shop" / "tasks.py").write_text("def build() -> None: ...\n")
    assert "W008" not in run(project, "manage.py", "check").stderr
