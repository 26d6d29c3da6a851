"""What running a try came to."""

from __future__ import annotations

import traceback
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from .retry import GiveUp, RetryIn
from .values import clean_text

MESSAGE_LIMIT = 10_000  # characters
TRACEBACK_LIMIT = 20_000


@dataclass(frozen=True, slots=True)
class ErrorRecord:
    """An exception as a row keeps it."""

    error_class: str  # module and name, e.g. `shop.errors.CardDeclined`
    message: str
    traceback: str

    @classmethod
    def of(cls, error: BaseException) -> ErrorRecord:
        """Describe `error`; also when its own `str()` fails."""
        kind = type(error)
        return cls(
            error_class=clean_text(f"{kind.__module__}.{kind.__qualname__}".removeprefix("builtins."), 255),
            message=clean_text(_text_of(error), MESSAGE_LIMIT),
            traceback=clean_text(_traceback_of(error), TRACEBACK_LIMIT),
        )


@dataclass(frozen=True, slots=True)
class Success:
    """The body returned `value`, already encoded as JSON data."""

    value: Any


@dataclass(frozen=True, slots=True)
class Failure:
    """The body failed. `then` says whether another try follows."""

    error: ErrorRecord
    then: RetryIn | GiveUp


@dataclass(frozen=True, slots=True)
class Released:
    """The body did not run to its end for reasons of ours: the try goes back as if it had never been claimed."""

    delay: timedelta = timedelta(0)


Outcome = Success | Failure | Released


def _text_of(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as problem:
        return f"<{type(error).__name__} whose str() raised {type(problem).__name__}>"


def _traceback_of(error: BaseException) -> str:
    try:
        return "".join(traceback.format_exception(error))
    except Exception:
        return _text_of(error)
