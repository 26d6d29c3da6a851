"""The options of a call: queue, time, retries and the like, beside its arguments."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from ..core.clock import current_clock
from ..exceptions import ArgumentError

if TYPE_CHECKING:
    from ..core.retry import RetryPolicy
    from ..core.steps import Step
    from .when import When

A_DAY = timedelta(days=1)


class CallOptions(NamedTuple):
    """The options that `using(...)` sets for the calls made through its result. None: the task's own."""

    queue_name: str | None = None
    run_after: When | None = None  # a timedelta or seconds count from each call
    until: When | None = None
    priority: int | None = None
    max_retries: int | None = None
    retry: RetryPolicy | None = None
    timeout: float | None = None
    idempotency_key: str | None = None
    idempotency_period: timedelta | None = None
    on_failure: Step | None = None

    @property
    def is_deferred(self) -> bool:
        """Whether the calls have a time."""
        return self.run_after is not None or self.until is not None

    def in_row(self) -> dict[str, Any]:
        """The options that the worker needs, as the row keeps them."""
        if self is AS_THE_TASK_SAYS:
            return {}
        values = {
            "max_retries": self.max_retries,
            "timeout": self.timeout,
            "retry": None if self.retry is None else self.retry.as_json(),
            "on_failure": self.on_failure,
        }
        return {name: value for name, value in values.items() if value is not None}

    def instant(self) -> datetime | None:
        """The instant at which a call made now is to run; with `until`, a random one before it. None: at once."""
        if not self.is_deferred:
            return None
        from .when import instant  # late: most calls have no time

        clock = current_clock()
        start = None if self.run_after is None else instant("run_after", self.run_after)
        if self.until is None:
            return start
        now, end = clock.now(), instant("until", self.until)
        if start is not None and end < start and now < start:
            raise ArgumentError(f"until, {end.isoformat()}, lies before run_after, {start.isoformat()}.")
        start = start or now
        return start + max(end - start, timedelta(0)) * clock.random()


AS_THE_TASK_SAYS = CallOptions()
