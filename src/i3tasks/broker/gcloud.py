"""The gcloud commands that a deployment needs beside topics and subscriptions: for the beat and for IAM grants.

The commands are printed and not run, because the project's owner decides on grants. Values that I3TASKS does not know
are shell variables for the reader to set: `$SERVICE_ACCOUNT` (the e-mail of the account that signs requests),
`$LOCATION` (a region), `$SERVICE` (the Cloud Run service) and `$DEPLOYER` (the IAM member, such as
`user:me@example.com`, that runs these commands and `i3tasks ensure-pubsub`).
"""

from __future__ import annotations

import re
from shlex import quote

from ..conf import Config

_AGENT = "serviceAccount:service-${PROJECT_NUMBER}@gcp-sa-pubsub.iam.gserviceaccount.com"
"""The service account that Pub/Sub itself acts as."""


def beat_command(config: Config, beat_path: str) -> str:
    """The command that makes Cloud Scheduler POST to the beat endpoint each minute.

    The requests carry an OIDC token or the `beat_token`. If neither `endpoint` nor a push queue names the site, the
    address is `beat_path` on a placeholder host that the reader replaces.
    """
    url = config.beat_url or f"https://YOUR-SITE{beat_path}"
    job = re.sub(r"[^A-Za-z0-9_-]", "-", f"{config.settings.namespace}-beat")
    return (
        f"gcloud scheduler jobs create http {job} --project={quote(config.pubsub.project_id)} "
        f"--location=\"$LOCATION\" --schedule='* * * * *' --time-zone=Etc/UTC --uri={quote(url)} --http-method=POST "
        f"--attempt-deadline=60s {_beat_credentials(config, url)}"
    )


def push_grants(config: Config) -> list[str]:
    """The commands that let the signing accounts call the site, and let the deployer use these accounts.

    The list is empty if no account signs requests. The last command is needed only in projects that have used Pub/Sub
    since before April 8, 2021.
    """
    if config.pubsub.emulator:
        return []
    project = quote(config.pubsub.project_id)
    accounts = sorted({one.service_account for one in config.push_identities | config.beat_identities})
    commands: list[str] = []
    for account in accounts:
        commands += [
            f'gcloud run services add-iam-policy-binding "$SERVICE" --project={project} --region="$LOCATION" '
            f"--member=serviceAccount:{quote(account)} --role=roles/run.invoker",
            f"gcloud iam service-accounts add-iam-policy-binding {quote(account)} --project={project} "
            '--member="$DEPLOYER" --role=roles/iam.serviceAccountUser',
        ]
    if accounts:
        commands += [
            _project_number(config),
            f'gcloud projects add-iam-policy-binding {project} --member="{_AGENT}" '
            "--role=roles/iam.serviceAccountTokenCreator",
        ]
    return commands


def dead_letter_grants(config: Config) -> list[str]:
    """The commands that let Pub/Sub move dead letters, which it can't do without them. Empty if not needed."""
    if config.pubsub.emulator or not config.settings.dead_letter:
        return []
    project = config.pubsub.project_id
    commands = [_project_number(config)]
    for names in config.pubsub_queues:
        for kind, name, role in (
            ("topics", names.dead_letter_topic, "publisher"),
            ("subscriptions", names.subscription, "subscriber"),
        ):
            commands.append(
                f"gcloud pubsub {kind} add-iam-policy-binding {name.rpartition('/')[2]} --project={project} "
                f'--member="{_AGENT}" --role=roles/pubsub.{role}'
            )
    return commands


def _beat_credentials(config: Config, url: str) -> str:
    expected = sorted(config.beat_identities, key=lambda identity: identity.service_account)
    if not expected and config.settings.beat_token is not None:
        return '--headers="Authorization=Bearer $BEAT_TOKEN"'
    account = quote(expected[0].service_account) if expected else '"$SERVICE_ACCOUNT"'
    audience = expected[0].audience if expected else config.settings.audience or url
    return f"--oidc-service-account-email={account} --oidc-token-audience={quote(audience)}"


def _project_number(config: Config) -> str:
    project = quote(config.pubsub.project_id)
    return f"PROJECT_NUMBER=$(gcloud projects describe {project} --format='value(projectNumber)')"
