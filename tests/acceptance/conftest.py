"""Runs the example as the README says, and looks at what it leaves behind."""

import os
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from tests.support import databases
from tests.support.processes import Marked

ROOT = Path(__file__).resolve().parents[2]


def readme_command(file: str) -> list[str]:
    """The command line that the README gives for a file, with this Python in the place of `python3`."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    [line] = re.findall(rf"^python3 {re.escape(file)}.*$", readme, re.MULTILINE)
    return [sys.executable, *shlex.split(line)[1:]]


def plain_environ() -> dict[str, str]:
    """Our environment without what would choose another database, emulator or settings."""
    ours = ("CENSUS_", "PUBSUB_", "DJANGO_", "I3TASKS_")
    return {name: value for name, value in os.environ.items() if not name.startswith(ours)}


class Example(Marked):
    """The README's main job."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder / "output.txt")
        self.data = folder / "data"

    def begin(self, *options: str, terminal: int | None = None, **environ: str) -> None:
        command = [*readme_command("examples/census/run.py"), "--keep", str(self.data), *options]
        # The environment that the tests run in is the one that the command would make.
        env = {**plain_environ(), "I3TASKS_VENV": sys.prefix, **environ}
        self.start(command, env=env, cwd=ROOT, terminal=terminal)

    def run(self, *options: str, **environ: str) -> int:
        self.begin(*options, **environ)
        return self.wait()

    def number(self, name: str) -> int:
        """A figure of the report, by the name in front of it."""
        found = re.search(rf"^  {name} +([\d,]+)", self.text(), re.MULTILINE)
        assert found, self.text()
        return int(found[1].replace(",", ""))


@pytest.fixture
def example(tmp_path: Path) -> Iterator[Example]:
    example = Example(tmp_path)
    yield example
    example.end()


@pytest.fixture
def postgres_database() -> Iterator[str]:
    """The connection string of an empty PostgreSQL database."""
    import psycopg
    from psycopg.conninfo import make_conninfo

    try:
        url = databases.postgres_url()
    except databases.PostgresMissing as missing:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(missing))
    name = f"census_{uuid4().hex[:8]}"
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
        yield make_conninfo(url, dbname=name)
        connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')
