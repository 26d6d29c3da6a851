"""When a failed try is tried again. Pure: the same arguments give the same decision."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any

from .clock import Clock
from .exceptions import PermanentError, Retry, TaskCancelled, UnknownTaskError, WorkerLost

_LONGEST = timedelta(days=3650)


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often, and how long after a failure, a task is tried again.

    The delay before try n + 1 is `base_seconds * multiplier ** (n - 1)`, at most `max_seconds`, times a random factor
    in 1 ± `jitter`. `base_seconds` of None or 0 means at once. `give_up_on` wins over `retry_on`. Both match by
    `isinstance`; a class may be given by its full name, as text. A try that was lost with its worker counts as
    retryable, unless `give_up_on` names WorkerLost itself.
    """

    max_retries: int = 3
    base_seconds: float | None = 2
    max_seconds: float = 60
    multiplier: float = 2
    jitter: float = 0
    retry_on: tuple[type[BaseException] | str, ...] = (Exception,)
    give_up_on: tuple[type[BaseException] | str, ...] = ()

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
            "retry_on must be a tuple of exception classes or their full names": _are_exceptions(self.retry_on),
            "give_up_on must be a tuple of exception classes or their full names": _are_exceptions(self.give_up_on),
        }
        return [sentence for sentence, holds in checks.items() if not holds]

    def as_json(self) -> dict[str, Any]:
        """The policy as a row keeps it, with its exceptions by name."""
        names = {field: [_name(kind) for kind in getattr(self, field)] for field in ("retry_on", "give_up_on")}
        values = asdict(self)
        # JSON knows no infinity. No delay is so long anyway.
        finite = {name: sys.float_info.max for name, value in values.items() if value == math.inf}
        return {**values, **finite, **names}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> RetryPolicy:
        """What `as_json` wrote."""
        exceptions = {field: tuple(stored.get(field, ())) for field in ("retry_on", "give_up_on")}
        return cls(**{**stored, **exceptions})

    def delay(self, try_number: int, clock: Clock) -> timedelta:
        """How long to wait after try `try_number` (from 1) failed."""
        if not self.base_seconds:
            return timedelta(0)
        exponent = min(try_number - 1, 1000)
        try:
            seconds = min(self.base_seconds * self.multiplier**exponent, self.max_seconds)
        except OverflowError:
            seconds = self.max_seconds
        return timedelta(seconds=min(seconds * clock.jitter(self.jitter), _LONGEST.total_seconds()))


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
    if not _is_retryable(policy, error):
        return GiveUp(exhausted=False)
    if try_number > policy.max_retries:
        return GiveUp(exhausted=True)
    if isinstance(error, Retry) and error.delay is not None:
        return RetryIn(min(max(error.delay, timedelta(0)), _LONGEST))
    return RetryIn(policy.delay(try_number, clock))


def _is_retryable(policy: RetryPolicy, error: BaseException) -> bool:
    if isinstance(error, WorkerLost):
        return WorkerLost not in policy.give_up_on and _name(WorkerLost) not in policy.give_up_on
    if _matches(error, (PermanentError, TaskCancelled, UnknownTaskError, *policy.give_up_on)):
        return False
    # sys.exit() in a body is a failure like any other.
    return not isinstance(error, Exception) or _matches(error, (Retry, *policy.retry_on))


def _matches(error: BaseException, kinds: tuple[type[BaseException] | str, ...]) -> bool:
    names = {_name(kind) for kind in type(error).__mro__}
    return any(kind in names if isinstance(kind, str) else isinstance(error, kind) for kind in kinds)


def _name(kind: type | str) -> str:
    return kind if isinstance(kind, str) else f"{kind.__module__}.{kind.__qualname__}"


def _are_exceptions(kinds: object) -> bool:
    return isinstance(kinds, tuple) and all(
        (isinstance(kind, str) and "." in kind) or (isinstance(kind, type) and issubclass(kind, BaseException))
        for kind in kinds
    )
