"""JSON -> Python values."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from ...exceptions import ArgumentError, I3TasksError, ResultUnavailable
from .form import CONTAINERS, JSON, MAXIMUM_STORED_DEPTH, enum_named, parts, tagged


def decode(value: JSON) -> Any:
    """The inverse of `encode`. JSON that `encode` did not write (older rows) comes back unchanged.

    Raises ArgumentError for JSON that is nested too deeply or names an unknown time zone or enum, and ResultUnavailable
    in the place of a result that was not kept.
    """
    return _decode(value, MAXIMUM_STORED_DEPTH)


def unavailable(why: str) -> JSON:
    """A placeholder for a result that was not kept. Decoding it raises ResultUnavailable with this sentence."""
    return tagged("unavailable", why)


def _decode(value: JSON, depth: int) -> Any:
    if depth == 0:
        raise ArgumentError(
            f"The stored JSON is nested more than {MAXIMUM_STORED_DEPTH} levels deep, which i3tasks does not write. "
            "Look for what did."
        )
    if isinstance(value, list):
        return [_decode(item, depth - 1) for item in value]
    if not isinstance(value, dict):
        return value
    kind, inner = parts(value)
    try:
        if kind in CONTAINERS:
            return CONTAINERS[kind](_decode(inner, depth - 1))
        if kind in READERS:
            return READERS[kind](inner)
    except I3TasksError:
        raise
    except (ValueError, TypeError, AttributeError, ArithmeticError):
        kind = ""  # not written by `encode`
    return {key: _decode(item, depth - 1) for key, item in (inner if kind == "dict" else value).items()}


def _read_moment(kind: type[datetime] | type[time], written: JSON) -> datetime | time:
    if isinstance(written, str):
        return kind.fromisoformat(written)
    wall, zone, fold = written
    moment = kind.fromisoformat(wall).replace(fold=fold)
    return moment if zone is None else moment.replace(tzinfo=_zone(zone))


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise ArgumentError(f"This machine knows no time zone {name!r:.80}. Install the package tzdata.") from None


def _read_enum(written: JSON) -> Enum:
    module, qualname, name = written
    kind = enum_named(module, qualname)
    if kind is None or name not in kind.__members__:
        raise ArgumentError(
            f"This process knows no enum {module}.{qualname} with a member {name}. Import its module beside the task."
        )
    return kind[name]


def _raise_unavailable(why: JSON) -> None:
    raise ResultUnavailable(str(why))


READERS: dict[str, Callable[[Any], Any]] = {
    "datetime": lambda written: _read_moment(datetime, written),
    "date": date.fromisoformat,
    "time": lambda written: _read_moment(time, written),
    "timedelta": lambda parts: timedelta(*parts),
    "uuid": UUID,
    "decimal": Decimal,
    "float": float,
    "bytes": lambda text: b64decode(text, validate=True),
    "enum": _read_enum,
    "unavailable": _raise_unavailable,
}
