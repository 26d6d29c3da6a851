"""How long finished executions are kept."""

# No `from __future__ import annotations`: a dataclass searches each annotation that is text, at every start.

from dataclasses import fields
from datetime import timedelta

from django.core.exceptions import ImproperlyConfigured

from ..core.frozen import dataclass
from .base import Checked

LONGEST = timedelta(days=365_000)  # a thousand years; there is no date before the year 1


@dataclass(frozen=True)
class Retention(Checked):
    """How long after its end `i3tasks clean` deletes an execution, by how it ended."""

    succeeded: timedelta
    failed: timedelta | None = None
    """None: as `succeeded`."""
    cancelled: timedelta | None = None
    """None: as `succeeded`."""

    def __post_init__(self) -> None:
        for item in fields(self):
            require_age(f"{item.name} of Retention", getattr(self, item.name), or_none=item.name != "succeeded")


def require_age(name: str, value: object, *, or_none: bool = True) -> None:
    if value is None and or_none:
        return
    if not isinstance(value, timedelta) or not timedelta(0) < value <= LONGEST:
        kind = "a timedelta or None" if or_none else "a timedelta"
        limits = "longer than nothing and at most a thousand years"
        raise ImproperlyConfigured(f"{name} must be {kind}, {limits}, not {value!r}.")


def require_retention(whose: str, value: object) -> None:
    """`whose` is appended to the setting's name in the error: "" or " of queue 'mail'"."""
    if value is None or isinstance(value, Retention):
        return
    if not isinstance(value, timedelta):
        raise ImproperlyConfigured(
            f"retention{whose} must be a timedelta, or Retention(succeeded=timedelta(days=7), "
            f"failed=timedelta(days=90)), not {value!r}."
        )
    require_age(f"retention{whose}", value)
