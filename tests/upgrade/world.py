"""A project on its way from an old version to the new one: its folders, its database, its processes."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import psycopg

from tests.support.databases import SQLITE_OPTIONS, postgres_url

HERE = Path(__file__).parent
SECONDS = 120
ROWS = """SELECT e.id, e.task_name, e.task_path, CAST(e.task_args AS text), t.id, t.try_number, t.is_success,
    CAST(r.result AS text) FROM i3tasks_taskexecution e JOIN i3tasks_taskexecutiontry t ON t.task_execution_id = e.id
    LEFT JOIN i3tasks_taskexecutionresult r ON r.task_execution_try_id = t.id ORDER BY t.id"""
SUCCEEDED = "SELECT count(DISTINCT task_execution_id) FROM i3tasks_taskexecutiontry WHERE is_success AND is_completed"
MADE = "SELECT count(*) FROM i3tasks_taskexecution"

Database = dict[str, Any]
"""As an entry of DATABASES."""


@contextmanager
def databases(kind: str | None) -> Iterator[dict[str, Callable[[str], Database]]]:
    """What makes a database of that kind, or of both, with a name."""
    makers: dict[str, Callable[[str], Database]] = {"sqlite": lambda name: {}, "postgres": _postgres}
    yield {name: maker for name, maker in makers.items() if kind in (None, name)}


def _postgres(name: str) -> Database:
    parts = psycopg.conninfo.conninfo_to_dict(postgres_url())
    with psycopg.connect(postgres_url(), autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
    keys = {"USER": "user", "PASSWORD": "password", "HOST": "host", "PORT": "port"}
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": name,
        **{key: str(parts.get(part, "")) for key, part in keys.items()},
    }


@dataclass(frozen=True, slots=True)
class Old:
    """A version of django-i3tasks, and the folders from which it is imported."""

    version: str
    paths: Sequence[Path]


class World:
    """One upgrade. Its processes end with the `with` block."""

    def __init__(self, folder: Path, old: Old, database: Database, pubsub: str) -> None:
        self.name = folder.name
        self._folder = folder
        self._database = database or {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": str(folder / "db.sqlite3"),
            "OPTIONS": SQLITE_OPTIONS,
        }
        self._old = old
        self._shared = {"SHOP_DATABASE": json.dumps(self._database), "SHOP_PUBSUB": pubsub}
        self._shared["SHOP_NAMESPACE"] = folder.name
        self._log = folder / "output.log"
        self._workers: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> World:
        shutil.copytree(HERE / "project", self._folder / "old")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    @property
    def old_ones_can_insert(self) -> bool:
        """Whether old processes can insert rows once the tables are new: see docs/upgrading.md."""
        return self._database["ENGINE"].endswith("postgresql") or self._old.version >= "0.1.4"

    def swap(self) -> None:
        """Give the project the new names, as `i3tasks doctor --fix` does; the old one stays, for the side by side."""
        shutil.copytree(self._folder / "old", self._folder / "new")
        self._run("new", ["-m", "i3tasks", "doctor", "--fix", "--yes"], codes=(0, 1))
        left = [path for path in (self._folder / "new").rglob("*.py") if "django_i3tasks" in path.read_text()]
        assert not left, f"the old name is left in {left}"

    def old(self, *command: str) -> None:
        self._run("old", ["manage.py", *command])

    def new(self, *command: str) -> None:
        self._run("new", ["-m", "i3tasks", *command] if command[0] == "health" else ["manage.py", *command])

    def enqueue_old(self) -> None:
        self._run("old", ["-m", "shop.enqueue", str(self._folder)])

    def enqueue_new(self) -> None:
        self._run("new", ["-m", "shop.enqueue", str(self._folder)])

    @contextmanager
    def old_worker(self) -> Iterator[None]:
        with self._working("old", ["manage.py", "i3tasks_worker", "--queue", "default"]):
            yield

    @contextmanager
    def new_worker(self) -> Iterator[None]:
        with self._working("new", ["-m", "i3tasks", "run-worker"]):
            yield

    def rows(self) -> list[tuple[Any, ...]]:
        """All executions, tries and results."""
        return self._asked(ROWS)

    def until_succeeded(self, count: int) -> None:
        """Wait until so many executions have succeeded; fail if there are more or time is up."""
        deadline = time.monotonic() + SECONDS
        while (found := self._asked(SUCCEEDED)[0][0]) != count:
            assert time.monotonic() < deadline, f"{found} of {count} have succeeded, of {self._asked(MADE)[0][0]} made"
            assert all(worker.poll() is None for worker in self._workers), "a worker has ended"
            time.sleep(0.1)
        [(made,)] = self._asked(MADE)
        assert made == count, f"{made} executions were made, not {count}"

    def outputs(self) -> str:
        """The end of what its processes said."""
        return self._log.read_text(encoding="utf-8")[-6000:] if self._log.exists() else ""

    def _asked(self, query: str) -> list[tuple[Any, ...]]:
        if self._database["ENGINE"].endswith("sqlite3"):
            with closing(sqlite3.connect(self._database["NAME"], timeout=20)) as connection:
                return connection.execute(query).fetchall()
        url = psycopg.conninfo.make_conninfo(postgres_url(), dbname=self._database["NAME"])
        with psycopg.connect(url) as connection:
            return connection.execute(query).fetchall()

    def _environment(self, which: str) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("DJANGO_", "PUBSUB_"))}
        paths = self._old.paths if which == "old" else ()
        return {
            **kept,
            **self._shared,
            "DJANGO_SETTINGS_MODULE": "shop.settings",
            "PYTHONPATH": os.pathsep.join(map(str, (self._folder / which, *paths))),
        }

    def _run(self, which: str, command: Sequence[str], codes: Sequence[int] = (0,)) -> None:
        done = subprocess.run(
            [sys.executable, *command],
            cwd=self._folder / which,
            env=self._environment(which),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        with self._log.open("a", encoding="utf-8") as log:
            log.write(f"{time.strftime('%X')} {which}: {' '.join(command)}\n{done.stdout}")
        assert done.returncode in codes, f"{which}: {' '.join(command)} ended with {done.returncode}"

    @contextmanager
    def _working(self, which: str, command: Sequence[str]) -> Iterator[None]:
        with self._log.open("a", encoding="utf-8") as log:
            process = subprocess.Popen(
                [sys.executable, *command],
                cwd=self._folder / which,
                env=self._environment(which),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self._workers.append(process)
        try:
            yield
        finally:
            self._workers.remove(process)
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
