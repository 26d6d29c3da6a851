"""`i3tasks_beat`, also `i3tasks beat`: enqueue the due slots of schedules, and publish due tries; run no task."""

from __future__ import annotations

import asyncio
from typing import Any

from django.core.management.base import CommandError, CommandParser

from ...engine.beat import Beat
from ...engine.dispatcher import Dispatcher
from ...engine.worker_row import Presence, passing_by
from ...models import WorkerRole
from ..events import show_events
from ..stopping import run_until_stopped
from ..unapplied import NoticingCommand


class Command(NoticingCommand):
    help = (
        "Enqueue schedules when they are due, publish due tries, and expire the leases of lost workers. Workers do "
        "the same, so this is for projects whose tasks are pushed. Any number may run."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--once", action="store_true", help="Make one pass and end. (until SIGTERM or Ctrl-C)")

    def handle(self, *args: Any, once: bool, verbosity: int, **options: Any) -> None:
        show_events(verbosity)
        if once:
            _pass_once()
            return
        if verbosity:
            self.stdout.write("Beating. Ctrl-C stops.")
            self.stdout.flush()
        asyncio.run(_run())


def _pass_once() -> None:
    presence = passing_by(WorkerRole.BEAT)
    beat = Beat(presence.beaten)
    beat.pass_once()
    Dispatcher(on_pass=presence.dispatched).pass_while_busy()
    presence.end()
    if beat.problem:
        raise CommandError(beat.problem)


async def _run() -> None:
    presence = Presence(WorkerRole.BEAT)
    presence.begin()
    try:
        await run_until_stopped(Beat(presence.beaten).run(), Dispatcher(on_pass=presence.dispatched).run())
    finally:
        presence.end()
