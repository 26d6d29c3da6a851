"""When something is to happen, as callers say it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from django.utils import timezone

from .clock import SYSTEM_CLOCK
from .conf import get_config
from .exceptions import ArgumentError

When = datetime | timedelta | float
"""An aware datetime, or a timedelta or seconds from now on."""


def instant(name: str, when: When) -> datetime:
    """`when` as an aware datetime in UTC, no later than I3TASKS allows."""
    if isinstance(when, datetime) and timezone.is_naive(when):
        raise ArgumentError(f"{name} is a datetime without a time zone. Pass an aware one (timezone.now() + ...).")
    try:
        if isinstance(when, datetime):
            at = when.astimezone(UTC)
        else:
            at = SYSTEM_CLOCK.now() + (when if isinstance(when, timedelta) else timedelta(seconds=when))
    except (OverflowError, ValueError, TypeError) as error:
        raise ArgumentError(
            f"{name} must be an aware datetime, a timedelta or seconds, within the calendar, not {when!r:.80}: {error}"
        ) from None
    furthest = get_config().settings.maximum_eta
    if furthest is not None and at > SYSTEM_CLOCK.now() + furthest:
        raise ArgumentError(f"{name} is {at.isoformat()}, later than I3TASKS allows (maximum_eta: {furthest}).")
    return at
