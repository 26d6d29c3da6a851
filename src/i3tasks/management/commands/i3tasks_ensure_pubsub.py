"""`i3tasks_ensure_pubsub`, also `i3tasks ensure-pubsub`: make topics and subscriptions be as the settings say."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.urls import NoReverseMatch, reverse

from ...broker.gcloud import beat_command, push_commands
from ...broker.provisioning import dead_letter_grants, ensure
from ...conf import Config, get_config
from ...exceptions import BrokerError


class Command(BaseCommand):
    help = "Create the Pub/Sub topics and subscriptions of every queue, and update those that differ from the settings."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--dry-run", action="store_true", help="Only report what would change.")

    def handle(self, *args: Any, dry_run: bool = False, **options: Any) -> None:
        config = get_config()
        try:
            changes = ensure(config, dry_run=dry_run)
        except BrokerError as error:
            raise CommandError(str(error)) from error
        prefix = "[dry-run] " if dry_run else ""
        for change in changes:
            self.stdout.write(f"{prefix}{change}")
        self._show_grants(dead_letter_grants(config))
        self._show_doors(config)
        impossible = sum(change.action == "impossible" for change in changes)
        count = len(changes) - impossible
        self.stdout.write(
            f"{prefix}{count} {'change' if count == 1 else 'changes'}{' would be' if dry_run else ''} made."
        )
        if impossible:
            raise CommandError(f"{impossible} subscription(s) can't be changed; see above for what to do.")

    def _show_grants(self, commands: list[str]) -> None:
        if commands:
            self.stdout.write("Pub/Sub moves dead letters only once it may. If you have not yet, run:")
            for command in commands:
                self.stdout.write(f"  {command}")

    def _show_doors(self, config: Config) -> None:
        """What Google is to call, and to sign its calls with."""
        if config.pubsub.emulator:
            return
        commands = [beat_command(config, _beat_path()), *push_commands(config)]
        self.stdout.write(
            "Cloud Scheduler calls the beat endpoint each minute, and Pub/Sub signs its pushes, once you have run "
            "these (SERVICE_ACCOUNT: the e-mail of the account that signs; LOCATION: a region such as europe-west1):"
        )
        for command in commands:
            self.stdout.write(f"  {command}")


def _beat_path() -> str:
    """Where the project's URLs have the beat endpoint."""
    try:
        return reverse("i3tasks-beat")
    except NoReverseMatch:
        return "/i3/tasks-beat/"
