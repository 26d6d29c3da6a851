"""A virtual environment for each peer, made at first use and kept. Our own contestants run in the harness's own."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

PYTHONS = ("python3.14", "python3.13", "python3.12")
"""Tried after the harness's own, for peers that need a newer one."""


PACKAGES = (
    "django", "i3tasks", "django-i3tasks", "procrastinate", "dramatiq", "taskiq", "celery", "django-tasks-db",
    "threadmill", "dj-queue", "psycopg", "redis", "google-cloud-pubsub", "grpcio", "uvicorn", "httptools", "uvloop",
)  # fmt: skip
VERSIONS = f"""
import importlib.metadata, platform
found = [f"Python {{platform.python_version()}}"]
for name in {PACKAGES}:
    try:
        found.append(f"{{name}} {{importlib.metadata.version(name)}}")
    except importlib.metadata.PackageNotFoundError:
        pass
print(", ".join(found))
"""


class NotInstalled(Exception):
    """A peer that can't be installed here."""


def python_for(name: str, requires: tuple[str, ...], folder: Path) -> str:
    """The interpreter that has these packages; the harness's own if there are none."""
    if not requires:
        return sys.executable
    place = folder / name
    python = place / "bin" / "python"
    if (place / "complete").exists():
        return str(python)
    answers = []
    for base in [sys.executable, *filter(None, map(shutil.which, PYTHONS))]:
        subprocess.run([base, "-m", "venv", "--clear", str(place)], check=True, stdout=subprocess.DEVNULL)
        install = [str(python), "-m", "pip", "install", "--quiet", "psutil", *requires]
        done = subprocess.run(install, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            (place / "complete").touch()
            return str(python)
        answers.append(done.stderr.strip().splitlines()[-1])
    raise NotInstalled(f"pip install {' '.join(requires)}: {answers[-1]}")


def versions(python: str) -> str:
    """The versions of Python and of the packages that matter."""
    return subprocess.run([python, "-c", VERSIONS], capture_output=True, text=True, check=True).stdout.strip()
