"""The project's queues as a seed of the embedded emulator: `i3tasks emulator --seed settings`."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..conf import Config, Identity, QueueNames, get_config
from ..emulator import Seed


def seed_of(config: Config) -> Seed:
    """A topic and a subscription for each queue; a worker or `ensure-pubsub` adds what else they need."""
    queues = config.pubsub_queues
    return Seed(topics=[names.topic for names in queues], subscriptions=[_subscription(names) for names in queues])


@contextmanager
def with_seed_file(arguments: Sequence[str]) -> Iterator[list[str]]:
    """The emulator's command line with a seed file in the place of `settings`."""
    replaced = list(arguments)
    index = replaced.index("--seed") + 1
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "seed.json"
        path.write_text(seed_of(get_config()).as_json(), encoding="utf-8")
        replaced[index] = str(path)
        yield replaced


def _subscription(names: QueueNames) -> dict[str, Any]:
    settings = get_config().settings
    subscription: dict[str, Any] = {
        "name": names.subscription,
        "topic": names.topic,
        "ack_deadline_seconds": settings.ack_deadline_seconds,
    }
    if names.push_endpoint is not None:
        subscription["push_config"] = _push_config(names.push_endpoint, names.push_identity)
    return subscription


def _push_config(endpoint: str, signer: Identity | None) -> dict[str, Any]:
    if signer is None:
        return {"push_endpoint": endpoint}
    token = {"service_account_email": signer.service_account, "audience": signer.audience}
    return {"push_endpoint": endpoint, "oidc_token": token}
