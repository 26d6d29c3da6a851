"""Assembles what an event loop needs to run tries: the executor with its pool and its leases."""

from __future__ import annotations

from dataclasses import dataclass

from ..conf import get_config
from . import outbox
from .executor import Executor
from .gateway import writer
from .lease_renewal import Running
from .pool import WorkerPool
from .worker_row import new_worker_id


@dataclass(frozen=True, slots=True)
class Engine:
    """An executor together with its pool and its running tries."""

    executor: Executor
    pool: WorkerPool
    running: Running


def make_engine(*, concurrency: int | None = None, threads: int | None = None, worker_id: str | None = None) -> Engine:
    """Return an engine for the running event loop. Limits that are not given come from the I3TASKS setting."""
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
        worker_id=worker_id or new_worker_id(),
    )
    return Engine(executor, pool, running)
