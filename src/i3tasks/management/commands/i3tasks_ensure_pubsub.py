"""`i3tasks_ensure_pubsub`, also `i3tasks ensure-pubsub`: make topics and subscriptions be as the settings say."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.urls import NoReverseMatch, reverse

from ...broker.gcloud import beat_command, dead_letter_grants, push_grants
from ...broker.provisioning import ensure
from ...conf import Config, get_config
from ...exceptions import BrokerError
from ..command import RowsCommand


class Command(RowsCommand):
    help = "Create the Pub/Sub topics and subscriptions of every queue, and update those that differ from the settings."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--dry-run", action="store_true", help="Only report what would change.")

    def handle(self, *args: Any, dry_run: bool = False, **options: Any) -> None:
        config = get_config()
        if not config.pubsub_queues:
            self.stdout.write("All queues of I3TASKS are in the database: there is nothing to make in Pub/Sub.")
            return
        try:
            changes = ensure(config, dry_run=dry_run)
        except BrokerError as error:
            raise CommandError(str(error)) from error
        prefix = "[dry-run] " if dry_run else ""
        for change in changes:
            self.stdout.write(f"{prefix}{change}")
        self._show("Pub/Sub moves dead letters only once it may. If you have not yet, run:", dead_letter_grants(config))
        self._show_endpoints(config)
        impossible = sum(change.action == "impossible" for change in changes)
        count = len(changes) - impossible
        self.stdout.write(
            f"{prefix}{count} {'change' if count == 1 else 'changes'}{' would be' if dry_run else ''} made."
        )
        if impossible:
            raise CommandError(f"{impossible} subscription(s) can't be changed; see above for what to do.")

    def _show_endpoints(self, config: Config) -> None:
        """Print which URLs Google is to call, and which account signs the requests."""
        if config.pubsub.emulator:
            return
        for names in config.push_queues:
            if names.push_identity is None:
                self.stdout.write(
                    f"Pushes of the queue {names.name!r} are not signed: set service_account in I3TASKS, and run this "
                    "again."
                )
        self._show(
            "Cloud Scheduler calls the beat endpoint each minute once you have run (LOCATION: a region such as "
            "europe-west1):",
            [beat_command(config, _beat_path())],
        )
        self._show(
            "The accounts that sign requests need roles/run.invoker; who has them sign, iam.serviceAccounts.actAs; and "
            "Pub/Sub itself, in projects that have used it since before April 8, 2021, the last role. If you have not "
            "yet, run (SERVICE: the Cloud Run service; DEPLOYER: the account that runs this command, such as "
            "user:ann@example.com):",
            push_grants(config),
        )

    def _show(self, introduction: str, commands: list[str]) -> None:
        if commands:
            self.stdout.write(introduction)
            for command in commands:
                self.stdout.write(f"  {command}")


def _beat_path() -> str:
    """The path of the beat endpoint in the project's URLs."""
    try:
        return reverse("i3tasks-beat")
    except NoReverseMatch:
        return "/i3/tasks-beat/"
