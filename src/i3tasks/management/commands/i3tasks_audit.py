"""`i3tasks_audit`, also `i3tasks audit`: check that the rows of i3tasks are consistent."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.core.management.base import CommandError, CommandParser

from ...core.clock import current_clock
from ...store.audit import audit
from ...store.database import time_of
from ..command import RowsCommand


class Command(RowsCommand):
    help = "Check that no execution is lost, stuck or finished twice. Ends with an error if one is."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--overdue",
            type=float,
            default=300,
            metavar="SECONDS",
            help="How late a publish or a lease's expiry may be. (%(default)s)",
        )

    def handle(self, *args: Any, overdue: float, **options: Any) -> None:
        findings = audit(overdue=timedelta(seconds=overdue), now=time_of(current_clock()))
        for finding in findings:
            self.stdout.write(str(finding))
        if findings:
            are = "rule is" if len(findings) == 1 else "rules are"
            raise CommandError(f"{len(findings)} {are} broken. Please report it, with the rows of what is named above.")
        self.stdout.write("All rows are consistent.")
