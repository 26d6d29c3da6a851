"""`i3tasks dev` in a terminal: it reloads tasks while others drain, and Ctrl-C ends all of it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.conftest import plain_environ
from tests.support.terminal import InTerminal

I3TASKS = str(Path(sys.executable).with_name("i3tasks"))
SETTINGS = """
from i3tasks.types import DatabaseQueue, I3TasksSettings
SECRET_KEY = "a test's"
INSTALLED_APPS = ["i3tasks", "shop"]
USE_TZ = True
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": "db.sqlite3",
        "OPTIONS": {"transaction_mode": "IMMEDIATE", "timeout": 20, "init_command": "PRAGMA journal_mode=WAL"},
    }
}
I3TASKS = I3TasksSettings(default_queue=DatabaseQueue("default"))
"""
TASKS = """
import asyncio
from pathlib import Path
from i3tasks import task

@task
async def work(name: str) -> None:
    print(f"{name} begins in {VERSION}")
    while not Path("may-end").exists():
        await asyncio.sleep(0.02)
    print(f"{name} ends in {VERSION}")
"""
ENVIRON = {**plain_environ(), "DJANGO_SETTINGS_MODULE": "shop.settings"}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "__init__.py").touch()
    (tmp_path / "shop" / "settings.py").write_text(SETTINGS, encoding="utf-8")
    (tmp_path / "shop" / "tasks.py").write_text(TASKS + "VERSION = 'the first version'\n", encoding="utf-8")
    return tmp_path


@pytest.fixture
def dev(tmp_path: Path) -> Iterator[InTerminal]:
    dev = InTerminal(tmp_path)
    yield dev
    dev.end()


def enqueue(project: Path, name: str) -> None:
    code = f"import django; django.setup(); from shop.tasks import work; work.delay({name!r})"
    subprocess.run([sys.executable, "-c", code], env=ENVIRON, cwd=project, check=True)


def test_a_task_is_reloaded_while_another_drains_and_ctrl_c_leaves_nothing(project: Path, dev: InTerminal) -> None:
    dev.open([I3TASKS, "dev", "--no-web", "--migrate"], ENVIRON, project)
    dev.until_says("worker_started")
    enqueue(project, "Ada")
    dev.until_says("Ada begins in the first version")

    (project / "shop" / "tasks.py").write_text(TASKS + "VERSION = 'the second'\n", encoding="utf-8")
    dev.until_says("shop/tasks.py changed: starting anew.")
    enqueue(project, "Bob")
    dev.until_says("Bob begins in the second")
    assert "Ada ends" not in dev.text(), "it drains"
    (project / "may-end").touch()
    dev.until_says("Ada ends in the first version")
    dev.until(lambda: dev.text().count("succeeded shop.tasks.work") == 2)
    dev.type(b"\x03")

    assert dev.wait(60) == 0, dev.text()
    assert dev.survivors() == []
    assert "\x1b[32mworker   | \x1b[0mRunning" in dev.coloured, "each line has a coloured prefix"
    assert "\x1b[35mbeat     | \x1b[0mBeating" in dev.coloured
