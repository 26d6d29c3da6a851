"""What one event loop needs to run tries: the executor with its pool and its leases."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass

from .. import outbox
from ..clock import SYSTEM_CLOCK
from ..conf import get_config
from ..store.writer import writer
from .executor import Executor
from .pool import WorkerPool
from .running import Running


@dataclass(frozen=True, slots=True)
class Engine:
    """An executor and what it stands on."""

    executor: Executor
    pool: WorkerPool
    running: Running


def make_engine(*, concurrency: int | None = None, threads: int | None = None) -> Engine:
    """An engine for the loop that runs; limits that are not given are those of I3TASKS."""
    settings = get_config().settings
    pool = WorkerPool(
        concurrency=concurrency or settings.concurrency,
        threads=threads or settings.threads,
        database_lanes=settings.database_lanes,
    )
    running = Running(writer, lease_seconds=settings.lease_seconds, heartbeat_seconds=settings.heartbeat_seconds)
    executor = Executor(
        store=writer,
        pool=pool,
        running=running,
        follow_up=outbox.send,
        worker_id=new_worker_id(),
    )
    return Engine(executor, pool, running)


def new_worker_id() -> str:
    """Names this process in the rows: host, process id, and something that no later process repeats."""
    return f"{socket.gethostname()[:200]}:{os.getpid()}:{SYSTEM_CLOCK.new_uuid7().hex[-8:]}"
