"""What `manage.py check` costs with i3tasks in a new project that has the admin, beside the same project without:

    python -m tests.benchmarks.checking [rounds]

User and system time, the two in turns. The one with i3tasks has a task, and includes the board and the endpoints.
"""

from __future__ import annotations

import compileall
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import i3tasks

ROUNDS = 15
SETTINGS = """
from project.settings import *

INSTALLED_APPS = [*INSTALLED_APPS, "i3tasks", "shop"]
ROOT_URLCONF = "with_i3tasks_urls"
"""
URLS = """
from django.urls import include, path
from project.urls import urlpatterns

board, endpoints = include("i3tasks.dashboard.urls"), include("i3tasks.urls")
urlpatterns = [*urlpatterns, path("i3/board/", board), path("i3/", endpoints)]
"""
TASKS = """
from i3tasks import task

@task
async def hello(name: str) -> str:
    return name
"""
KINDS = {"without": "project.settings", "with": "with_i3tasks"}


def main(rounds: int = ROUNDS) -> dict[str, float]:
    """Print the medians of so many rounds, and return them in seconds."""
    with tempfile.TemporaryDirectory() as folder:
        _make(Path(folder))
        times: dict[str, list[float]] = {kind: [] for kind in KINDS}
        for number in range(rounds + 1):
            for kind, settings in KINDS.items():
                taken = _check(Path(folder), settings)
                if number:  # the first round compiles
                    times[kind].append(taken)
    medians = {kind: statistics.median(taken) for kind, taken in times.items()}
    for kind, taken in times.items():
        print(f"{kind:8} {medians[kind] * 1000:4.0f} ms ({min(taken) * 1000:.0f} to {max(taken) * 1000:.0f})")
    print(f"ratio of the medians {medians['with'] / medians['without']:.2f}, Python {sys.version.split()[0]}")
    return medians


def _make(folder: Path) -> None:
    subprocess.run([sys.executable, "-m", "django", "startproject", "project", str(folder)], check=True)
    (folder / "with_i3tasks.py").write_text(SETTINGS)
    (folder / "with_i3tasks_urls.py").write_text(URLS)
    (folder / "shop").mkdir()
    (folder / "shop" / "__init__.py").touch()
    (folder / "shop" / "tasks.py").write_text(TASKS)
    compileall.compile_dir(Path(i3tasks.__file__).parent, quiet=2)  # as pip does with what it installs


def _check(folder: Path, settings: str) -> float:
    """CPU seconds of one check."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        [sys.executable, "manage.py", "check", "--settings", settings],
        cwd=folder,
        env=environment,
        check=True,
        capture_output=True,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
