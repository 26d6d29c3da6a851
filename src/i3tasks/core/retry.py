"""When a failed try is tried again. Pure: the same arguments give the same decision."""

from __future__ import annotations

import builtins
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any

from ..exceptions import PermanentError, ResultUnavailable, Retry, TaskCancelled, UnknownTaskError, WorkerLost
from .clock import Clock

_LONGEST = timedelta(days=3650)


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often, and how long after a failure, a task is tried again.

    The delay before try n + 1 is `base_seconds * multiplier ** (n - 1)`, at most `max_seconds`, times a random factor
    in 1 ± `jitter`. `base_seconds` of None or 0 means at once. `give_up_on` wins over `retry_on`. Both match by
    `isinstance`; a class may be given as text, by the name that a row has in `error_class`. A try that was lost with
    its worker counts as retryable, unless `give_up_on` names WorkerLost itself.

    An exception group, also one inside another, is judged by the errors in it, in this order: one that is final
    (PermanentError, or in `give_up_on`) makes the group final; so does one that `retry_on` does not match, unless
    `retry_on` names a class of groups; the longest `delay` of a Retry among them is the delay.
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
        longest = _LONGEST.total_seconds()  # before and after: infinity times zero is no number
        return timedelta(seconds=min(min(seconds, longest) * clock.jitter(self.jitter), longest))


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
    errors = list(_each(error))
    if any(_is_final(policy, item) for item in errors) or not _are_retryable(policy, errors):
        return GiveUp(exhausted=False)
    if try_number > policy.max_retries:
        return GiveUp(exhausted=True)
    asked = [item.delay for item in errors if isinstance(item, Retry) and item.delay is not None]
    if asked:
        return RetryIn(min(max(*asked, timedelta(0)), _LONGEST))
    return RetryIn(policy.delay(try_number, clock))


def class_name(kind: type) -> str:
    """The name that rows, policies and log lines have for an error's class: module and name, no module if builtin."""
    return f"{kind.__module__}.{kind.__qualname__}".removeprefix(_BUILTIN)


def importable_name(name: str) -> str:
    """The path by which the class of an error can be imported, from the name that rows have for it."""
    return name if "." in name else f"{_BUILTIN}{name}"


_BUILTIN = "builtins."


def _each(error: BaseException) -> Iterator[BaseException]:
    """The error; for a group, the group and every error in it. Without recursion: groups nest as deep as they like."""
    waiting = [error]
    while waiting:
        current = waiting.pop()
        yield current
        if isinstance(current, BaseExceptionGroup):
            waiting += current.exceptions


def _is_final(policy: RetryPolicy, error: BaseException) -> bool:
    if isinstance(error, WorkerLost):
        return WorkerLost in policy.give_up_on or class_name(WorkerLost) in policy.give_up_on
    return _matches(error, (PermanentError, ResultUnavailable, TaskCancelled, UnknownTaskError, *policy.give_up_on))


def _are_retryable(policy: RetryPolicy, errors: Sequence[BaseException]) -> bool:
    """Whether all of them are; or the first, a group that has the others in it, is one whose class `retry_on` names."""
    groups = tuple(kind for kind in type(errors[0]).__mro__ if issubclass(kind, BaseExceptionGroup))
    named = {kind if isinstance(kind, str) else class_name(kind) for kind in policy.retry_on}
    return any(class_name(kind) in named for kind in groups) or all(_is_retryable(policy, item) for item in errors)


def _is_retryable(policy: RetryPolicy, error: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return True  # its errors decide
    # sys.exit() in a body is a failure like any other.
    return (
        isinstance(error, WorkerLost) or not isinstance(error, Exception) or _matches(error, (Retry, *policy.retry_on))
    )


def _matches(error: BaseException, kinds: tuple[type[BaseException] | str, ...]) -> bool:
    names = {class_name(kind) for kind in type(error).__mro__}
    return any(
        kind.removeprefix(_BUILTIN) in names if isinstance(kind, str) else isinstance(error, kind) for kind in kinds
    )


def _name(kind: type | str) -> str:
    return kind if isinstance(kind, str) else class_name(kind)


def _are_exceptions(kinds: object) -> bool:
    return isinstance(kinds, tuple) and all(
        _is_name(kind) if isinstance(kind, str) else isinstance(kind, type) and issubclass(kind, BaseException)
        for kind in kinds
    )


def _is_name(text: str) -> bool:
    """Whether it may be the name of an error's class; one without a module is Python's own."""
    builtin = getattr(builtins, text, None)
    return "." in text or (isinstance(builtin, type) and issubclass(builtin, BaseException))
