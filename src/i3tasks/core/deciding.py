"""The decision after a failed try. Pure: the same arguments give the same decision."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta

from ..exceptions import PermanentError, ResultUnavailable, Retry, TaskCancelled, UnknownTaskError, WorkerLost
from .clock import Clock
from .retry import BUILTIN, LONGEST_DELAY, RetryPolicy, class_name


@dataclass(frozen=True, slots=True)
class RetryIn:
    """Try again after `delay`."""

    delay: timedelta


@dataclass(frozen=True, slots=True)
class GiveUp:
    """The failure is final. `exhausted`: there were retries, and they are used up."""

    exhausted: bool


def decide(policy: RetryPolicy, try_number: int, error: BaseException, clock: Clock) -> RetryIn | GiveUp:
    """Decide what follows after try `try_number` (from 1) has failed with `error`."""
    errors = list(_each(error))
    if any(_is_final(policy, item) for item in errors) or not _are_retryable(policy, errors):
        return GiveUp(exhausted=False)
    if try_number > policy.max_retries:
        return GiveUp(exhausted=True)
    asked = [item.delay for item in errors if isinstance(item, Retry) and item.delay is not None]
    if asked:
        return RetryIn(min(max(*asked, timedelta(0)), LONGEST_DELAY))
    return RetryIn(policy.delay(try_number, clock))


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
    """Whether all errors are retryable, or the first one, a group that holds the others, has a class in `retry_on`."""
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
        kind.removeprefix(BUILTIN) in names if isinstance(kind, str) else isinstance(error, kind) for kind in kinds
    )
