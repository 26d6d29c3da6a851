from typing import Any

from django.core.management.base import BaseCommand, CommandError

from census import report
from census.models import Census


class Command(BaseCommand):
    help = "Prints the report of the latest census. Fails when a file has no figures."

    def handle(self, *args: Any, **options: Any) -> None:
        census = Census.objects.latest("pk")
        for line in report.lines(census):
            self.stdout.write(line)
        left = census.files.filter(measured_at=None).count()
        if left:
            raise CommandError(f"{left} files could not be counted: their tasks failed, or have not run yet.")
