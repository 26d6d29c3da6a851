"""What a call is made with beside its arguments."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from django.utils import timezone

from ..clock import SYSTEM_CLOCK, Clock
from ..conf import get_config
from ..exceptions import ArgumentError
from ..retry import RetryPolicy
from ..steps import Step

A_DAY = timedelta(days=1)

When = datetime | timedelta | float
"""An aware datetime, or a timedelta or seconds from now on."""


@dataclass(frozen=True, slots=True)
class CallOptions:
    """What `using(...)` sets for calls made through its result. None: as the task says."""

    queue_name: str | None = None
    run_after: datetime | None = None
    until: datetime | None = None
    priority: int | None = None
    max_retries: int | None = None
    retry: RetryPolicy | None = None
    timeout: float | None = None
    idempotency_key: str | None = None
    idempotency_period: timedelta | None = None
    on_failure: Step | None = None

    def in_row(self) -> dict[str, Any]:
        """What the worker must know of them."""
        values = {
            "max_retries": self.max_retries,
            "timeout": self.timeout,
            "retry": None if self.retry is None else self.retry.as_json(),
            "on_failure": self.on_failure,
        }
        return {name: value for name, value in values.items() if value is not None}

    def instant(self, clock: Clock = SYSTEM_CLOCK) -> datetime | None:
        """When a call made now is to run: with `until`, a random instant before it. None: at once."""
        if self.until is None:
            return self.run_after
        start = self.run_after or clock.now()
        return start + max(self.until - start, timedelta(0)) * clock.random()


AS_THE_TASK_SAYS = CallOptions()


def instant(name: str, when: When) -> datetime:
    """`when` as an aware datetime in UTC, no later than I3TASKS allows."""
    if isinstance(when, datetime):
        if timezone.is_naive(when):
            raise ArgumentError(f"{name} is a datetime without a time zone. Pass an aware one (timezone.now() + ...).")
        at = when.astimezone(UTC)
    else:
        at = SYSTEM_CLOCK.now() + (when if isinstance(when, timedelta) else timedelta(seconds=when))
    furthest = get_config().settings.maximum_eta
    if furthest is not None and at > SYSTEM_CLOCK.now() + furthest:
        raise ArgumentError(f"{name} is {at.isoformat()}, later than I3TASKS allows (maximum_eta: {furthest}).")
    return at


def caller_key(module_name: str, func_name: str, key: str) -> str:
    """The stored form of an `idempotency_key`, which each task has to itself."""
    return f"key:{hashlib.sha256(f'{module_name}.{func_name}:{key}'.encode()).hexdigest()}"
