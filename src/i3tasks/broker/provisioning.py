"""Topics and subscriptions as the settings want them: compare, create, update.

`ensure` is the whole of it, and what `i3tasks ensure-pubsub` runs. Publisher and receivers call `ensure_at_start`.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Literal

from ..clock import SYSTEM_CLOCK
from ..conf import Config, QueueNames
from ..exceptions import BrokerError
from ..telemetry import emit
from ..types import PushQueue
from .errors import BrokerUnavailable
from .loading import importing

if TYPE_CHECKING:
    from .admin import Admin

DELETED_TOPIC = "_deleted-topic_"
"""What Pub/Sub calls the topic of a subscription whose topic was deleted."""
_DEAD_LETTER_RETENTION_SECONDS = 31 * 86_400  # the most that Pub/Sub keeps
_EMULATED_RETENTION_SECONDS = 7 * 86_400  # the most that Google's emulator takes
_AGAIN_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Subscription:
    """The fields of a subscription that matter to us, as wanted or as found."""

    topic: str
    push_endpoint: str | None
    """None: a pull subscription."""
    ack_deadline_seconds: int
    message_retention_seconds: float
    expires_after_seconds: float | None
    """Of disuse. None: never."""
    retry_backoff_seconds: tuple[float, float] | None
    """Least and most. None: delivered again at once."""
    dead_letter: tuple[str, int] | None
    """Topic, and deliveries before a message goes there."""
    filter: str = ""
    detached: bool = False


@dataclass(frozen=True, slots=True)
class FieldChange:
    """One field that differs."""

    name: str
    old: object
    new: object

    def __str__(self) -> str:
        return f"{self.name}: {_show(self.old)} -> {_show(self.new)}"


@dataclass(frozen=True, slots=True)
class Change:
    """What was done, or under `dry_run` would be, to a topic or subscription.

    `recreate`: the subscription's topic was deleted, so nothing reaches it any more; it is deleted and made anew.
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
    """Make topics and subscriptions be as `config` wants them, and return what differed; [] = nothing did.

    Blocks for some requests per queue. Several processes may do it at the same time. Raises BrokerError.
    """
    with importing():
        from .admin import Admin
    admin = Admin(config.pubsub, dry_run=dry_run)
    try:
        return [change for names in config.queues.values() for change in _ensure_queue(admin, config, names)]
    finally:
        admin.close()


def _ensure_queue(admin: Admin, config: Config, names: QueueNames) -> Iterator[Change]:
    yield from _ensure_topic(admin, names.topic)
    if config.settings.dead_letter:
        yield from _ensure_topic(admin, names.dead_letter_topic)
        yield from _ensure_subscription(admin, names.dead_letter_subscription, wanted_dead_letter(config, names))
    yield from _ensure_subscription(admin, names.subscription, wanted(config, names))


def wanted(config: Config, names: QueueNames) -> Subscription:
    """A queue's subscription as the settings want it."""
    settings = config.settings
    minimum, maximum = settings.retry_minimum_backoff_seconds, settings.retry_maximum_backoff_seconds
    return Subscription(
        topic=names.topic,
        push_endpoint=names.queue.push_endpoint if isinstance(names.queue, PushQueue) else None,
        ack_deadline_seconds=settings.ack_deadline_seconds,
        message_retention_seconds=settings.message_retention_seconds,
        expires_after_seconds=None,
        retry_backoff_seconds=None if minimum is None or maximum is None else (minimum, maximum),
        dead_letter=(names.dead_letter_topic, settings.dead_letter_max_attempts) if settings.dead_letter else None,
    )


def wanted_dead_letter(config: Config, names: QueueNames) -> Subscription:
    """The subscription that keeps a queue's dead letters for somebody to look at."""
    return Subscription(
        topic=names.dead_letter_topic,
        push_endpoint=None,
        ack_deadline_seconds=config.settings.ack_deadline_seconds,
        message_retention_seconds=(
            _EMULATED_RETENTION_SECONDS if config.pubsub.emulator else _DEAD_LETTER_RETENTION_SECONDS
        ),
        expires_after_seconds=None,
        retry_backoff_seconds=None,
        dead_letter=None,
    )


def differences(old: Subscription, new: Subscription) -> tuple[FieldChange, ...]:
    """The fields in which `old` is not as `new` wants."""
    return tuple(
        FieldChange(field.name, getattr(old, field.name), getattr(new, field.name))
        for field in fields(Subscription)
        if getattr(old, field.name) != getattr(new, field.name)
    )


_UNCHANGEABLE = ("topic", "filter", "detached")


def _ensure_topic(admin: Admin, name: str) -> Iterator[Change]:
    if not admin.has_topic(name) and admin.create_topic(name):
        yield Change("topic", name, "create")


def _ensure_subscription(admin: Admin, name: str, new: Subscription) -> Iterator[Change]:
    old = admin.read_subscription(name)
    if old is None:
        if admin.create_subscription(name, new):
            yield Change("subscription", name, "create")
            return
        old = admin.read_subscription(name) or new  # somebody else made it just now
    changes = differences(old, new)
    stuck = tuple(change for change in changes if change.name in _UNCHANGEABLE)
    if old.topic == DELETED_TOPIC:
        admin.delete_subscription(name)
        admin.create_subscription(name, new)
        yield Change("subscription", name, "recreate", stuck)
    elif stuck:
        yield Change("subscription", name, "impossible", stuck)
    elif changes:
        admin.update_subscription(name, new, [change.name for change in changes])
        yield Change("subscription", name, "update", changes)


def _show(value: object) -> str:
    if value is None:
        return "none"
    if isinstance(value, tuple):
        return "/".join(map(_show, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


# ------------------------------------------------------------------------------------------------ grants


def dead_letter_grants(config: Config) -> list[str]:
    """The gcloud commands that let Pub/Sub itself move dead letters; without them it never does. [] = not needed."""
    if config.pubsub.emulator or not config.settings.dead_letter:
        return []
    project = config.pubsub.project_id
    agent = "serviceAccount:service-${PROJECT_NUMBER}@gcp-sa-pubsub.iam.gserviceaccount.com"
    commands = [f"PROJECT_NUMBER=$(gcloud projects describe {project} --format='value(projectNumber)')"]
    for names in config.queues.values():
        for kind, name, role in (
            ("topics", names.dead_letter_topic, "publisher"),
            ("subscriptions", names.subscription, "subscriber"),
        ):
            commands.append(
                f"gcloud pubsub {kind} add-iam-policy-binding {name.rpartition('/')[2]} --project={project} "
                f'--member="{agent}" --role=roles/pubsub.{role}'
            )
    return commands


# ------------------------------------------------------------------------------------------------ at start

_ensuring = threading.Lock()
_ensured: tuple[Config, float] | None = None
"""The settings that were ensured, and from when on it may be done again."""


def ensure_at_start(config: Config, *, again: bool = False) -> bool:
    """Ensure once per process, and `again` at most once a minute, if the settings ask for it. True: done just now.

    A refusal (a service account that may not administer, say) is an event, not an error: what is needed may be there.
    Raises BrokerUnavailable when there was no answer.
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
