"""How often and when a failed try is tried again: the policy that a task or a call has."""

from __future__ import annotations

import builtins
import math
import sys
from collections.abc import Mapping
from dataclasses import asdict
from datetime import timedelta
from typing import Any

from .clock import Clock
from .frozen import Frozen, dataclass

LONGEST_DELAY = timedelta(days=3650)


@dataclass(frozen=True)
class RetryPolicy(Frozen):
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
        """The policy that `as_json` wrote."""
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
        longest = LONGEST_DELAY.total_seconds()  # before and after: infinity times zero is no number
        return timedelta(seconds=min(min(seconds, longest) * clock.jitter(self.jitter), longest))


def class_name(kind: type) -> str:
    """The name that rows, policies and log lines have for an error's class: module and name, no module if builtin."""
    return f"{kind.__module__}.{kind.__qualname__}".removeprefix(BUILTIN)


def importable_name(name: str) -> str:
    """The path by which the class of an error can be imported, from the name that rows have for it."""
    return name if "." in name else f"{BUILTIN}{name}"


BUILTIN = "builtins."


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
