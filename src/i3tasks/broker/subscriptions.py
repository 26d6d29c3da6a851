"""A subscription's settings: those that I3TASKS wants, those that Pub/Sub has, and the differences."""

from __future__ import annotations

from dataclasses import dataclass, fields

from ..conf import Config, QueueNames

DELETED_TOPIC = "_deleted-topic_"
"""The topic's name, in Pub/Sub, of a subscription whose topic was deleted."""
UNCHANGEABLE = ("topic", "filter", "detached")
"""Fields that Pub/Sub can't change on an existing subscription."""
_DEAD_LETTER_RETENTION_SECONDS = 31 * 86_400  # Pub/Sub's maximum
_EMULATED_RETENTION_SECONDS = 7 * 86_400  # the maximum of Google's emulator


@dataclass(frozen=True, slots=True)
class SubscriptionSettings:
    """The fields of a subscription that i3tasks manages, as wanted or as found."""

    topic: str
    push_endpoint: str | None
    """URL of the pushes; None for a pull subscription."""
    push_token: tuple[str, str] | None
    """Service account and audience of the OIDC token in each push. In found settings, None means that pushes are not
    signed; in wanted settings, None means that the found value stays."""
    ack_deadline_seconds: int
    message_retention_seconds: float
    expires_after_seconds: float | None
    """Seconds without use after which Pub/Sub deletes the subscription; None for never."""
    retry_backoff_seconds: tuple[float, float] | None
    """Shortest and longest backoff before a message is delivered again; None for at once."""
    dead_letter: tuple[str, int] | None
    """Dead-letter topic, and the number of deliveries after which a message goes there; None for no such topic."""
    filter: str = ""
    detached: bool = False


@dataclass(frozen=True, slots=True)
class FieldChange:
    """A field whose found value differs from the wanted one."""

    name: str
    old: object
    new: object

    def __str__(self) -> str:
        return f"{self.name}: {_show(self.old)} -> {_show(self.new)}"


def wanted(config: Config, names: QueueNames) -> SubscriptionSettings:
    """The subscription that the settings want for a queue."""
    settings = config.settings
    signer = names.push_identity
    minimum, maximum = settings.retry_minimum_backoff_seconds, settings.retry_maximum_backoff_seconds
    return SubscriptionSettings(
        topic=names.topic,
        push_endpoint=names.push_endpoint,
        push_token=None if signer is None else (signer.service_account, signer.audience),
        ack_deadline_seconds=settings.ack_deadline_seconds,
        message_retention_seconds=settings.message_retention_seconds,
        expires_after_seconds=None,
        retry_backoff_seconds=None if minimum is None or maximum is None else (minimum, maximum),
        dead_letter=(names.dead_letter_topic, settings.dead_letter_max_attempts) if settings.dead_letter else None,
    )


def wanted_dead_letter(config: Config, names: QueueNames) -> SubscriptionSettings:
    """The subscription that keeps a queue's dead letters, so that people can read them."""
    return SubscriptionSettings(
        topic=names.dead_letter_topic,
        push_endpoint=None,
        push_token=None,
        ack_deadline_seconds=config.settings.ack_deadline_seconds,
        message_retention_seconds=(
            _EMULATED_RETENTION_SECONDS if config.pubsub.emulator else _DEAD_LETTER_RETENTION_SECONDS
        ),
        expires_after_seconds=None,
        retry_backoff_seconds=None,
        dead_letter=None,
    )


def differences(old: SubscriptionSettings, new: SubscriptionSettings) -> tuple[FieldChange, ...]:
    """The fields of `old` that differ from `new`."""
    return tuple(
        FieldChange(field.name, getattr(old, field.name), getattr(new, field.name))
        for field in fields(SubscriptionSettings)
        if getattr(old, field.name) != getattr(new, field.name)
        and not (field.name == "push_token" and new.push_token is None)
    )


def _show(value: object) -> str:
    if value is None:
        return "none"
    if isinstance(value, tuple):
        return "/".join(map(_show, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
