"""A real worker for an integration test, on an embedded emulator of its own."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import uuid4

from django.db import connections
from django.test import override_settings

from ..broker.publisher import get_publisher, withholding
from ..conf import get_config
from ..emulator import EmulatorProcess
from ..engine.worker import Worker
from ..exceptions import I3TasksError
from ..models import TaskExecution
from ..store.database import alias, in_transaction, rows

STOP_SECONDS = 30.0
POLL_SECONDS = 0.02


class RunningWorker:
    """A worker in a thread of this process."""

    def __init__(self, concurrency: int, threads: int) -> None:
        self._begun = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(concurrency, threads), name="i3tasks-test-worker")
        self._loop: asyncio.AbstractEventLoop | None = None
        self._worker: Worker | None = None

    def wait(self, timeout: float = 30) -> None:
        """Wait until every call has ended that is not put off. Raises TimeoutError, and the worker's own error."""
        deadline = time.monotonic() + timeout
        while left := self._unfinished():
            if not self._thread.is_alive():
                raise I3TasksError("The worker has ended: the error above says why.") from self._error
            if time.monotonic() > deadline:
                raise TimeoutError(
                    f"{left} calls have not ended within {timeout:g} seconds. Does a body hang? Otherwise pass a "
                    "larger `timeout`."
                )
            time.sleep(POLL_SECONDS)

    def _start(self) -> None:
        self._thread.start()
        self._begun.wait()

    def _stop(self) -> None:
        if self._loop is not None and self._worker is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._worker.stop)
        self._thread.join(STOP_SECONDS)
        if self._error is not None:
            raise self._error

    def _run(self, concurrency: int, threads: int) -> None:
        try:
            asyncio.run(self._work(concurrency, threads))
        except BaseException as error:
            self._error = error
        finally:
            self._begun.set()
            connections.close_all()

    async def _work(self, concurrency: int, threads: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._worker = Worker(get_config().worker_queues, concurrency=concurrency, threads=threads)
        self._begun.set()
        await self._worker.run()

    @staticmethod
    def _unfinished() -> int:
        waiting = rows(TaskExecution).filter(outcome__isnull=True, tries__is_completed=False)
        return waiting.filter(tries__run_after__isnull=True).distinct().count()


@contextmanager
def worker(*, concurrency: int = 10, threads: int = 4) -> Iterator[RunningWorker]:
    """Run a worker in a thread of this process, for all queues but pushed ones, while the block lasts.

    It has an embedded emulator of its own. Tests need real transactions: TransactionTestCase, or
    `django_db(transaction=True)`, and on SQLite a test database in a file (`TEST: {"NAME": "..."}`). Raises
    I3TasksError where it could see nothing.
    """
    connection = connections[alias()]
    if in_transaction():
        raise I3TasksError(
            "worker() sees committed rows only, and this test runs in a transaction. Use TransactionTestCase or "
            "django_db(transaction=True); or drain(), which needs no worker."
        )
    if connection.vendor == "sqlite" and "mode=memory" in str(connection.settings_dict["NAME"]):
        raise I3TasksError(
            "worker() has connections of its own, which an in-memory database refuses. Give the test database a file: "
            '"TEST": {"NAME": BASE_DIR / "test.sqlite3"}.'
        )
    with EmulatorProcess() as emulator:
        broker = {"EMULATOR": True, "HOST": emulator.host_port, "PROJECT_ID": f"test-{uuid4().hex[:8]}"}
        with override_settings(PUBSUB_CONFIG=broker), withholding(False):
            running = RunningWorker(concurrency, threads)
            running._start()
            try:
                yield running
            finally:
                running._stop()
                get_publisher().flush(5)
