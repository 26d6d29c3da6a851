"""`i3tasks_dispatch`, also `i3tasks dispatch`: publish due tries and recover lost ones; run no task."""

from __future__ import annotations

import asyncio
from typing import Any

from django.core.management.base import CommandParser

from ...engine.dispatcher import Dispatcher
from ...engine.worker_row import Presence, passing_by
from ...models import WorkerRole
from ..events import show_events
from ..stopping import run_until_stopped
from ..unapplied import NoticingCommand


class Command(NoticingCommand):
    help = "Publish deferred calls and retries when they are due, and expire the leases of lost workers."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--once", action="store_true", help="Make one pass and end. (until SIGTERM)")

    def handle(self, *args: Any, once: bool, verbosity: int, **options: Any) -> None:
        show_events(verbosity)
        if once:
            presence = passing_by(WorkerRole.DISPATCHER)
            Dispatcher(on_pass=presence.dispatched).pass_while_busy()
            presence.end()
        else:
            if verbosity:
                self.stdout.write("Dispatching. Ctrl-C stops.")
                self.stdout.flush()
            asyncio.run(_run())


async def _run() -> None:
    presence = Presence(WorkerRole.DISPATCHER)
    presence.begin()
    try:
        await run_until_stopped(Dispatcher(on_pass=presence.dispatched).run())
    finally:
        presence.end()
