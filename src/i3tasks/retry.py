"""When a failed try is tried again. Pure: the same arguments give the same decision."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from .clock import Clock
from .exceptions import PermanentError, Retry, TaskCancelled, UnknownTaskError, WorkerLost

_LONGEST = timedelta(days=3650)


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often, and how long after a failure, a task is tried again.

    The delay before try n + 1 is `base_seconds * multiplier ** (n - 1)`, at most `max_seconds`, times a random
    factor in 1 ± `jitter`. `base_seconds` of None or 0 means at once. `give_up_on` wins over `retry_on`.
    Both match by `isinstance`. A try that was lost with its worker always counts as retryable.
    """

    max_retries: int = 3
    base_seconds: float | None = 2
    max_seconds: float = 60
    multiplier: float = 2
    jitter: float = 0
    retry_on: tuple[type[BaseException], ...] = (Exception,)
    give_up_on: tuple[type[BaseException], ...] = ()

    def __post_init__(self) -> None:
        for problem in self._problems():
            raise ValueError(f"RetryPolicy: {problem}")

    def _problems(self) -> list[str]:
        checks = {
            "max_retries must be 0 or more": self.max_retries >= 0,
            "base_seconds must be None, 0 or more": self.base_seconds is None or self.base_seconds >= 0,
            "max_seconds must be 0 or more": self.max_seconds >= 0,
            "multiplier must be 1 or more": self.multiplier >= 1,
            "jitter must be between 0 and 1": 0 <= self.jitter <= 1,
            "retry_on must be a tuple of exception classes": _are_exceptions(self.retry_on),
            "give_up_on must be a tuple of exception classes": _are_exceptions(self.give_up_on),
        }
        return [sentence for sentence, holds in checks.items() if not holds]

    def delay(self, try_number: int, clock: Clock) -> timedelta:
        """How long to wait after try `try_number` (from 1) failed."""
        if not self.base_seconds:
            return timedelta(0)
        exponent = min(try_number - 1, 1000)
        try:
            seconds = min(self.base_seconds * self.multiplier**exponent, self.max_seconds)
        except OverflowError:
            seconds = self.max_seconds
        return min(timedelta(seconds=seconds * clock.jitter(self.jitter)), _LONGEST)


@dataclass(frozen=True, slots=True)
class RetryIn:
    """Try again after `delay`."""

    delay: timedelta


@dataclass(frozen=True, slots=True)
class GiveUp:
    """The failure is final. `exhausted`: there were retries, and they are used up."""

    exhausted: bool


def decide(policy: RetryPolicy, try_number: int, error: BaseException, clock: Clock) -> RetryIn | GiveUp:
    """What follows the failure of try `try_number` (from 1) with `error`."""
    if isinstance(error, (PermanentError, TaskCancelled, UnknownTaskError, *policy.give_up_on)):
        return GiveUp(exhausted=False)
    is_exit = not isinstance(error, Exception)  # sys.exit() in a body is a failure like any other
    if not is_exit and not isinstance(error, (Retry, WorkerLost, *policy.retry_on)):
        return GiveUp(exhausted=False)
    if try_number > policy.max_retries:
        return GiveUp(exhausted=True)
    if isinstance(error, Retry) and error.delay is not None:
        return RetryIn(max(error.delay, timedelta(0)))
    return RetryIn(policy.delay(try_number, clock))


def _are_exceptions(classes: object) -> bool:
    return isinstance(classes, tuple) and all(
        isinstance(item, type) and issubclass(item, BaseException) for item in classes
    )
