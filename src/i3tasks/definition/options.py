"""What a call is made with beside its arguments."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from ..clock import SYSTEM_CLOCK, Clock
from ..retry import RetryPolicy
from ..steps import Step
from ..when import When, instant

A_DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class CallOptions:
    """What `using(...)` sets for calls made through its result. None: as the task says."""

    queue_name: str | None = None
    run_after: When | None = None  # counted from each call, where it is a time from now on
    until: When | None = None
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
        start = None if self.run_after is None else instant("run_after", self.run_after)
        if self.until is None:
            return start
        start = start or clock.now()
        return start + max(instant("until", self.until) - start, timedelta(0)) * clock.random()


AS_THE_TASK_SAYS = CallOptions()


def caller_key(module_name: str, func_name: str, key: str) -> str:
    """The stored form of an `idempotency_key`, which each task has to itself."""
    return f"key:{hashlib.sha256(f'{module_name}.{func_name}:{key}'.encode()).hexdigest()}"
