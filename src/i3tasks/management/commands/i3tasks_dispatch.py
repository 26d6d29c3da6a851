"""`i3tasks_dispatch`, also `i3tasks dispatch`: publish what is due and recover what was lost; run no task."""

from __future__ import annotations

import asyncio
import signal
from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from ...dispatcher import Dispatcher
from ..events import show_events


class Command(BaseCommand):
    help = "Publish deferred calls and retries when they are due, and expire the leases of dead workers."
    requires_migrations_checks = True

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--once", action="store_true", help="One pass, instead of until SIGTERM.")

    def handle(self, *args: Any, once: bool, verbosity: int, **options: Any) -> None:
        show_events(verbosity)
        if once:
            Dispatcher().pass_once()
        else:
            self.stdout.write("Dispatching. Ctrl-C stops.")
            self.stdout.flush()
            asyncio.run(_until_stopped())


async def _until_stopped() -> None:
    task = asyncio.ensure_future(Dispatcher().run())
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    await asyncio.wait({task})
