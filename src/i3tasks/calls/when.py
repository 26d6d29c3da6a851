"""Instants as callers give them: a datetime, a timedelta, or seconds."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from django.utils import timezone

from ..conf import get_config
from ..core.clock import current_clock
from ..exceptions import ArgumentError

When = datetime | timedelta | float
"""An aware datetime, or a timedelta or seconds from now on."""


def instant(name: str, when: When) -> datetime:
    """`when` as an aware datetime in UTC, no later than I3TASKS allows."""
    from ..store.pauses import ASIDE_FROM  # only calls need it

    if isinstance(when, datetime) and timezone.is_naive(when):
        raise ArgumentError(f"{name} is a datetime without a time zone. Pass an aware one (timezone.now() + ...).")
    try:
        if isinstance(when, bool):
            raise TypeError("True and False are no time.")
        if isinstance(when, datetime):
            at = when.astimezone(UTC)
        else:
            at = current_clock().now() + (when if isinstance(when, timedelta) else timedelta(seconds=when))
    except (OverflowError, ValueError, TypeError) as error:
        raise ArgumentError(
            f"{name} must be an aware datetime, a timedelta or seconds, within the calendar, not {when!r:.80}: {error}"
        ) from None
    if at >= ASIDE_FROM:
        raise ArgumentError(
            f"{name} is {at.isoformat()}: no call can be put off beyond the year {ASIDE_FROM.year - 1}. Choose an "
            "earlier instant."
        )
    furthest = get_config().settings.maximum_eta
    if furthest is not None and at - current_clock().now() > furthest:
        raise ArgumentError(
            f"{name} is {at.isoformat()}, later than I3TASKS allows. Choose an earlier instant, or a longer "
            f"maximum_eta than {furthest}."
        )
    return at


def check_period(name: str, period: timedelta) -> None:
    """Raise ArgumentError for what is no length of time, or ends after the calendar does."""
    try:
        ends = current_clock().now() + period
    except (OverflowError, TypeError) as error:
        raise ArgumentError(f"{name} must be a timedelta within the calendar, not {period!r:.80}: {error}") from None
    if ends <= current_clock().now():
        raise ArgumentError(f"{name} must be a timedelta above 0, not {period!r:.80}.")
