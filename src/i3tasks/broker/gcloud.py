"""The gcloud commands that a deployment needs beside topics and subscriptions: the beat, and pushes that are signed.

They are printed, not run: who may call whom is for the project's owner to decide. `$SERVICE_ACCOUNT` (the e-mail of the
account that signs) and `$LOCATION` (Cloud Scheduler's region) are the reader's to set.
"""

from __future__ import annotations

import re
from shlex import quote

from ..conf import Config
from ..types import PushQueue

BEAT_PATH = "tasks-beat/"
_PUSH_PATH = re.compile(r"tasks-push/?$")


def beat_command(config: Config, beat_path: str) -> str:
    """Makes Cloud Scheduler POST to the beat endpoint each minute, with an OIDC token.

    The endpoint stands beside the first push queue's. Without one, it is `beat_path` on a host to be filled in.
    """
    url = beat_url(config) or f"https://YOUR-SITE{beat_path}"
    job = re.sub(r"[^A-Za-z0-9_-]", "-", f"{config.settings.namespace}-beat")
    return (
        f"gcloud scheduler jobs create http {job} --project={quote(config.pubsub.project_id)} "
        f"--location=\"$LOCATION\" --schedule='* * * * *' --time-zone=Etc/UTC --uri={quote(url)} --http-method=POST "
        f'--attempt-deadline=60s --oidc-service-account-email="$SERVICE_ACCOUNT" --oidc-token-audience={quote(url)}'
    )


def beat_url(config: Config) -> str | None:
    """The beat endpoint's URL, as far as a push endpoint tells."""
    for _, endpoint in _pushes(config):
        if _PUSH_PATH.search(endpoint):
            return _PUSH_PATH.sub(BEAT_PATH, endpoint)
    return None


def push_commands(config: Config) -> list[str]:
    """Make Pub/Sub sign the requests of each push subscription with an OIDC token."""
    return [
        f"gcloud pubsub subscriptions modify-push-config {quote(subscription)} "
        f"--project={quote(config.pubsub.project_id)} --push-endpoint={quote(endpoint)} "
        f'--push-auth-service-account="$SERVICE_ACCOUNT" --push-auth-token-audience={quote(endpoint)}'
        for subscription, endpoint in _pushes(config)
    ]


def _pushes(config: Config) -> list[tuple[str, str]]:
    """Short name and endpoint of each push subscription."""
    return [
        (names.subscription.rpartition("/")[2], names.queue.push_endpoint)
        for names in config.queues.values()
        if isinstance(names.queue, PushQueue)
    ]
