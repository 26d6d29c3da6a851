"""Runs the example as the README says, and looks at what it leaves behind."""

import contextlib
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import psutil
import pytest

from tests.support import databases

ROOT = Path(__file__).resolve().parents[2]
MARK = "I3TASKS_ACCEPTANCE_RUN"


def readme_command(file: str) -> list[str]:
    """The command line that the README gives for a file, with this Python in the place of `python3`."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    [line] = re.findall(rf"^python3 {re.escape(file)}.*$", readme, re.MULTILINE)
    return [sys.executable, *shlex.split(line)[1:]]


class Example:
    """The README's main job: started, watched, and searched for processes that outlive it."""

    def __init__(self, folder: Path) -> None:
        self.data = folder / "data"
        self.output = folder / "output.txt"
        self._mark = uuid4().hex
        self._popen: subprocess.Popen[str] | None = None

    def start(self, *options: str, terminal: int | None = None, **environ: str) -> None:
        """Start it, its output in a file, or in a terminal where one is given."""
        command = [*readme_command("examples/census/run.py"), "--keep", str(self.data), *options]
        with open(self.output, "w", encoding="utf-8") as output:
            self._popen = subprocess.Popen(
                command,
                # The environment that the tests run in is the one that the command would make.
                env={**self._environ(), "I3TASKS_VENV": sys.prefix, MARK: self._mark, **environ},
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=output if terminal is None else terminal,
                stderr=subprocess.STDOUT,
                text=True,
            )

    def wait(self, seconds: float = 100) -> int:
        assert self._popen
        return self._popen.wait(seconds)

    def run(self, *options: str, **environ: str) -> int:
        self.start(*options, **environ)
        return self.wait()

    def send(self, number: signal.Signals) -> None:
        assert self._popen
        self._popen.send_signal(number)

    def wait_for(self, text: str, seconds: float = 60) -> None:
        """Until the output holds this text; fails when the run ends without it."""
        deadline = time.monotonic() + seconds
        while text not in self.text():
            assert self._popen
            assert self._popen.poll() is None, self.text()
            assert time.monotonic() < deadline, self.text()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._popen.wait(0.05)

    def text(self) -> str:
        return self.output.read_text(encoding="utf-8") if self.output.exists() else ""

    def number(self, name: str) -> int:
        """A figure of the report, by the name in front of it."""
        found = re.search(rf"^  {name} +([\d,]+)", self.text(), re.MULTILINE)
        assert found, self.text()
        return int(found[1].replace(",", ""))

    def survivors(self) -> list[str]:
        """Processes that this run started and that still live, whoever their parent is now."""
        return [
            " ".join(process.info["cmdline"] or [])
            for process in psutil.process_iter(["environ", "cmdline", "status"])
            if (process.info["environ"] or {}).get(MARK) == self._mark
            and process.info["status"] != psutil.STATUS_ZOMBIE
        ]

    def end(self) -> None:
        if self._popen and self._popen.poll() is None:
            self._popen.terminate()
            self._popen.wait(60)

    @staticmethod
    def _environ() -> dict[str, str]:
        """Ours, without what would choose another database, emulator or settings."""
        ours = ("CENSUS_", "PUBSUB_", "DJANGO_", "I3TASKS_")
        return {name: value for name, value in os.environ.items() if not name.startswith(ours)}


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
