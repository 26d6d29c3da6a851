"""Provisioning: creates and updates topics and subscriptions as the settings want them.

`i3tasks ensure-pubsub` runs `ensure`. The publisher and the receivers call `ensure_at_start`.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from ..conf import Config, QueueNames
from ..core.clock import SYSTEM_CLOCK
from ..exceptions import BrokerError
from ..telemetry import emit
from .errors import BrokerUnavailable
from .loading import importing
from .subscriptions import (
    DELETED_TOPIC,
    UNCHANGEABLE,
    FieldChange,
    SubscriptionSettings,
    differences,
    wanted,
    wanted_dead_letter,
)

if TYPE_CHECKING:
    from .topic_admin import Admin

_AGAIN_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Change:
    """A change that was made to a topic or subscription, or that would be made without `dry_run`.

    `recreate`: the subscription's topic was deleted, so it gets no messages; it is deleted and created again.
    `impossible`: Pub/Sub can't change the fields; nothing was done, and the text says what to do by hand.
    """

    kind: Literal["topic", "subscription"]
    name: str
    action: Literal["create", "update", "recreate", "impossible"]
    fields: tuple[FieldChange, ...] = ()

    def __str__(self) -> str:
        details = "; ".join(map(str, self.fields))
        if self.action == "impossible":
            short = self.name.rpartition("/")[2]
            return (
                f"can't update {self.kind} {self.name}: {details}. Pub/Sub can't change this: delete it "
                f"(gcloud pubsub subscriptions delete {short}) and run this again. No task is lost by that."
            )
        return f"{self.action} {self.kind} {self.name}" + (f": {details}" if details else "")


def ensure(config: Config, *, dry_run: bool = False) -> list[Change]:
    """Make topics and subscriptions as `config` wants them. Returns the changes; an empty list if nothing differed.

    Blocks for some requests per queue. Several processes may call this at the same time. Raises BrokerError.
    """
    if not config.pubsub_queues:
        return []
    with importing():
        from .topic_admin import Admin
    admin = Admin(config.pubsub, dry_run=dry_run)
    try:
        return [change for names in config.pubsub_queues for change in _ensure_queue(admin, config, names)]
    finally:
        admin.close()


def _ensure_queue(admin: Admin, config: Config, names: QueueNames) -> Iterator[Change]:
    yield from _ensure_topic(admin, names.topic)
    if config.settings.dead_letter:
        yield from _ensure_topic(admin, names.dead_letter_topic)
        yield from _ensure_subscription(admin, names.dead_letter_subscription, wanted_dead_letter(config, names))
    yield from _ensure_subscription(admin, names.subscription, wanted(config, names))


def _ensure_topic(admin: Admin, name: str) -> Iterator[Change]:
    if not admin.has_topic(name) and admin.create_topic(name):
        yield Change("topic", name, "create")


def _ensure_subscription(admin: Admin, name: str, new: SubscriptionSettings) -> Iterator[Change]:
    old = admin.read_subscription(name)
    if old is None:
        if admin.create_subscription(name, new):
            yield Change("subscription", name, "create")
            return
        old = admin.read_subscription(name) or new  # another process has just created the subscription
    changes = differences(old, new)
    stuck = tuple(change for change in changes if change.name in UNCHANGEABLE)
    if old.topic == DELETED_TOPIC:
        admin.delete_subscription(name)
        admin.create_subscription(name, new)
        yield Change("subscription", name, "recreate", stuck)
    elif stuck:
        yield Change("subscription", name, "impossible", stuck)
    elif changes:
        admin.update_subscription(name, new, [change.name for change in changes])
        yield Change("subscription", name, "update", changes)


# ------------------------------------------------------------------------------------------------ at start

_ensuring = threading.Lock()
_ensured: tuple[Config, float] | None = None
"""The configuration that was ensured, and the monotonic time from which it may be ensured again."""


def ensure_at_start(config: Config, *, again: bool = False) -> bool:
    """Run `ensure` once per process if the settings ask for it; with `again`, at most every 10 seconds.

    Returns True if it ran now. A refusal (for example of a service account that may not administer) is an event and no
    error, because the topics and subscriptions may exist. Raises BrokerUnavailable if Pub/Sub gave no answer.
    """
    global _ensured
    if not config.settings.run_queue_create_command_on_startup:
        return False
    with _ensuring:
        now = SYSTEM_CLOCK.monotonic()
        if _ensured is not None and _ensured[0] is config and not (again and now >= _ensured[1]):
            return False
        for change in _ensure_or_warn(config):
            emit("provisioning_failed" if change.action == "impossible" else "provisioned", change=str(change))
        _ensured = (config, now + _AGAIN_SECONDS if again else now)
    return True


def _ensure_or_warn(config: Config) -> list[Change]:
    try:
        return ensure(config)
    except BrokerUnavailable:
        raise
    except BrokerError as error:
        emit("provisioning_failed", error=str(error))
        return []


def _after_fork_in_child() -> None:
    global _ensuring
    _ensuring = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
