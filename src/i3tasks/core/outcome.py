"""The outcome of running a try."""

from __future__ import annotations

import traceback
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from ..exceptions import MaxRetriesExceededError
from .clock import Clock
from .concealing import Conceal
from .deciding import GiveUp, RetryIn, decide
from .record import record
from .retry import RetryPolicy, class_name
from .text import clean_text


@dataclass(frozen=True, slots=True)
class ErrorLimits:
    """How many characters of an error a row keeps; what is longer loses its middle."""

    message: int = 10_000
    traceback: int = 20_000


DEFAULT_LIMITS = ErrorLimits()


@dataclass(frozen=True, slots=True)
class ErrorRecord:
    """An exception as a row keeps it."""

    error_class: str  # module and name, e.g. `shop.errors.CardDeclined`
    message: str
    traceback: str

    @classmethod
    def of(
        cls,
        error: BaseException,
        limits: ErrorLimits = DEFAULT_LIMITS,
        conceal: Conceal | None = None,
        led_to: BaseException | None = None,
    ) -> ErrorRecord:
        """Describe `error`; also when its own `str()` fails. `conceal` hides in its texts what is not to be kept.

        The traceback is that of the error which it led to, if there is one.
        """
        texts = [_text_of(error), _traceback_of(error if led_to is None else led_to)]
        message, trace = texts if conceal is None else map(conceal, texts)
        return cls(
            error_class=clean_text(class_name(type(error)), 255),
            message=clean_text(message, limits.message),
            traceback=clean_text(trace, limits.traceback),
        )


@record
class Success:
    """The body returned `value`, encoded as JSON data; with `text_of`, a type's name, only a text of that value."""

    value: Any
    text_of: str | None = None


@dataclass(frozen=True, slots=True)
class Failure:
    """The body failed. `then` says whether another try follows."""

    error: ErrorRecord
    then: RetryIn | GiveUp

    @classmethod
    def of(
        cls,
        error: BaseException,
        policy: RetryPolicy,
        try_number: int,
        clock: Clock,
        limits: ErrorLimits = DEFAULT_LIMITS,
        conceal: Conceal | None = None,
    ) -> Failure:
        """Decide what follows `error`, and describe it.

        The record of a last try keeps the class and message of its own error; its traceback ends with the
        MaxRetriesExceededError that the error led to.
        """
        then = decide(policy, try_number, error, clock)
        exceeded = None
        if isinstance(then, GiveUp) and then.exhausted:
            exceeded = MaxRetriesExceededError(
                f"The task failed {try_number} times; max_retries is {policy.max_retries}."
            )
            exceeded.__cause__ = error
        return cls(ErrorRecord.of(error, limits, conceal, exceeded), then)


@dataclass(frozen=True, slots=True)
class Released:
    """The body did not run to its end: the try goes back as if it had never been claimed, and is due after `delay`.

    Either i3tasks has a reason for it, such as the end of the worker; or the body has raised Snooze (`is_snoozed`), and
    the try must not run before the delay has passed.
    """

    delay: timedelta = timedelta(0)
    is_snoozed: bool = False


Outcome = Success | Failure | Released


def _text_of(error: BaseException) -> str:
    try:
        return str(error)
    except BaseException as problem:  # also SystemExit, which would take the worker with it
        return f"<{type(error).__name__} whose str() raised {type(problem).__name__}>"


def _traceback_of(error: BaseException) -> str:
    try:
        return "".join(traceback.format_exception(error))
    except BaseException:
        return _text_of(error)
