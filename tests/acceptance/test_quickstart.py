"""docs/quickstart.md, followed step by step in a fresh Django project."""

import re
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.acceptance.conftest import ROOT, plain_environ
from tests.support.processes import Marked

I3TASKS = Path(sys.executable).with_name("i3tasks")


def sample(beginning: str) -> str:
    """The code block of the quickstart that begins so."""
    page = (ROOT / "docs" / "quickstart.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    [block] = [block for block in blocks if block.startswith(beginning)]
    return str(block)


def free_address() -> str:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{listener.getsockname()[1]}"


@pytest.fixture
def environ() -> dict[str, str]:
    return {**plain_environ(), "PUBSUB_EMULATOR_HOST": free_address()}


@pytest.fixture
def project(tmp_path: Path, environ: dict[str, str]) -> Path:
    """A project as `startproject` makes it, with the quickstart's settings and task."""
    subprocess.run([sys.executable, "-m", "django", "startproject", "shop", tmp_path], env=environ, check=True)
    settings = sample("# settings.py").replace("INSTALLED_APPS = [...,", "INSTALLED_APPS += ['shop',")
    with open(tmp_path / "shop" / "settings.py", "a", encoding="utf-8") as file:
        file.write(settings + sample("DATABASES = "))
    (tmp_path / "shop" / "tasks.py").write_text(sample("# shop/tasks.py"), encoding="utf-8")
    return tmp_path


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[Marked]:
    worker = Marked(tmp_path / "worker.log")
    yield worker
    worker.end()


def manage(project: Path, environ: dict[str, str], *command: str) -> str:
    done = subprocess.run(
        [sys.executable, "manage.py", *command], cwd=project, env=environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def outcomes(project: Path) -> list[str | None]:
    with closing(sqlite3.connect(project / "db.sqlite3")) as database:
        return [outcome for (outcome,) in database.execute("SELECT outcome FROM i3tasks_taskexecution")]


def test_the_quickstart_leads_to_a_task_that_ran(project: Path, environ: dict[str, str], worker: Marked) -> None:
    assert "no issues" in manage(project, environ, "check")
    manage(project, environ, "migrate")
    # Enqueued before there is any worker or emulator: the row is kept.
    manage(project, environ, "shell", "-c", "from shop.tasks import greet; greet.delay('Ada')")
    assert outcomes(project) == [None]

    worker.start([str(I3TASKS), "run-worker", "--concurrency", "10"], env=environ, cwd=project)
    worker.until_says("Started the embedded emulator")
    manage(project, environ, "shell", "-c", "from shop.tasks import greet; greet.delay('Bob')")
    worker.until(lambda: "success" in outcomes(project))
    worker.send(signal.SIGTERM)

    assert worker.wait() == 0, worker.text()
    assert worker.survivors() == []
