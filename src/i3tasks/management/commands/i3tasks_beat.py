"""`i3tasks_beat`, also `i3tasks beat`: enqueue what schedules ask for, and publish what is due; run no task."""

from __future__ import annotations

import asyncio
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from ...dispatcher import Dispatcher
from ...engine.beat import Beat
from ..events import show_events
from ..stopping import run_until_stopped


class Command(BaseCommand):
    help = (
        "Enqueue schedules when they are due, publish what is due, and expire the leases of dead workers. Workers do "
        "so too: this is for projects whose tasks are pushed. Any number may run."
    )
    requires_migrations_checks = True

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--once", action="store_true", help="One pass, instead of until SIGTERM or Ctrl-C.")

    def handle(self, *args: Any, once: bool, verbosity: int, **options: Any) -> None:
        show_events(verbosity)
        if once:
            _pass_once()
            return
        self.stdout.write("Beating. Ctrl-C stops.")
        self.stdout.flush()
        asyncio.run(_run())


def _pass_once() -> None:
    beat = Beat()
    beat.pass_once()
    Dispatcher().pass_once()
    if beat.is_down:
        raise CommandError("The database gave no answer. What is due stays due.")


async def _run() -> None:
    await run_until_stopped(Beat().run(), Dispatcher().run())
