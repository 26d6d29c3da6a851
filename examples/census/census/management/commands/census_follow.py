import time
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db.models import Count

from census.models import Census
from census.progress import Progress
from census.report import executions_of, tries_of

LOOKS_A_SECOND = 5


class Command(BaseCommand):
    help = "Shows the progress of the latest census, from the database, until all its tasks have ended."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--patience", type=float, default=120, metavar="SECONDS", help="give up when nothing moves for so long"
        )

    def handle(self, *args: Any, patience: float, **options: Any) -> None:
        census = Census.objects.latest("pk")
        progress = Progress(2 * census.files.count(), self.stdout._out)  # type: ignore[attr-defined]
        last, moved_at = -1, time.monotonic()
        while executions_of(census).filter(finished_at=None).exists():
            progress.show(*_done(census))
            settled = tries_of(census).filter(is_completed=True).count()
            if settled != last:
                last, moved_at = settled, time.monotonic()
            elif time.monotonic() - moved_at > patience:
                raise CommandError(f"No task has ended for {patience:g} s. Is a worker running?")
            time.sleep(1 / LOOKS_A_SECOND)
        progress.close(*_done(census))


def _done(census: Census) -> tuple[int, str]:
    """Count the finished steps, two for each file. Returns the number, and a sentence about them."""
    counts = census.files.aggregate(files=Count("pk"), fetched=Count("text"), measured=Count("measured_at"))
    words = "{fetched} fetched, {measured} measured of {files} files".format(**counts)
    return counts["fetched"] + counts["measured"], words
