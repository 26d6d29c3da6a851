"""Python values -> JSON."""

from __future__ import annotations

import json
import math
from base64 import b64encode
from collections.abc import Callable, Iterable, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any, NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo

from ...exceptions import ArgumentError
from ..text import MAXIMUM_BYTES, clean_text
from .form import (
    JSON,
    LONGEST_SHOWN,
    MAXIMUM_DEPTH,
    MAXIMUM_DIGITS,
    RESULT_JSON,
    TAG,
    Placeholder,
    enum_named,
    tagged,
)
from .walking import placeholders

_BEYOND_INTEGERS = 10**MAXIMUM_DIGITS
_SMALL_BITS = 1000


def encode(value: Any, path: str, limit: int = MAXIMUM_BYTES) -> JSON:
    """`value` as JSON data. `path` names it in errors, e.g. `args[0]` or `kwargs['when']`.

    Raises ArgumentError for values that JSON, or PostgreSQL's reading of it, can't hold, and for a value that takes
    more than about `limit` bytes.
    """
    encoder = _Encoder(limit)
    try:
        return encoder.encode(value, MAXIMUM_DEPTH)
    except _Refused as refused:
        raise refused.error(path) from None


def encode_arguments(
    args: Iterable[Any], kwargs: Mapping[str, Any], *, limit: int = MAXIMUM_BYTES, of_step: bool = False
) -> tuple[list[JSON], dict[str, JSON]]:
    """The arguments of one call as JSON data. RESULT is taken for a step of a workflow only.

    Raises ArgumentError naming the argument that can't be encoded.
    """
    encoder = _Encoder(limit, takes_placeholder=of_step)
    try:
        encoded = encoder.items(args, MAXIMUM_DEPTH + 1)
    except _Refused as refused:
        raise refused.error("args") from None
    try:
        return encoded, encoder.mapping(kwargs, MAXIMUM_DEPTH + 1)
    except _Refused as refused:
        if refused.is_key and not refused.places:
            raise ArgumentError(f"A keyword {refused.reason}") from None
        raise refused.error("kwargs") from None


class EncodedResult(NamedTuple):
    """A return value as JSON data; with `text_of`, the name of a type that JSON can't hold, `data` is its text."""

    data: JSON
    text_of: str | None = None


def encode_result(value: Any, limit: int = MAXIMUM_BYTES) -> EncodedResult:
    """A return value as JSON data. A value that JSON can't hold is kept as its `str()`, for reading by people.

    Never raises, even if the value's own methods do: the task has succeeded.
    """
    if type(value) is EncodedResult:  # by a child process; isinstance() would ask the value
        return value
    try:
        return EncodedResult(encode(value, "result", limit))
    except BaseException as error:
        text = str(error) if isinstance(error, _TooLarge) else _text_of(value)
        return EncodedResult(clean_text(text, limit), clean_text(_type_name(value), 255))


class _TooLarge(ArgumentError):
    """The values take more bytes as JSON than I3TASKS allows. Store them elsewhere, and pass where they are."""


class _Refused(Exception):
    """A value that can't be encoded. Containers add the place where they hold it, so paths cost nothing until then."""

    def __init__(self, reason: str, *, is_key: bool = False) -> None:
        self.reason = reason
        self.is_key = is_key
        self.places: list[str] = []

    def at(self, place: str) -> _Refused:
        self.places.append(place)
        return self

    def error(self, path: str) -> ArgumentError:
        where = path + "".join(reversed(self.places))
        return ArgumentError(f"{'a key of ' if self.is_key else ''}{where} {self.reason}")


class _Encoder:
    """Encodes values until they have taken `limit` bytes."""

    def __init__(self, limit: int, *, takes_placeholder: bool = False) -> None:
        self._limit = self._left = limit
        self._takes_placeholder = takes_placeholder

    def encode(self, value: Any, depth: int) -> JSON:
        self._spend(2)
        if value is None or value is True or value is False:
            return value
        if depth == 0:
            raise _Refused(f"is nested more than {MAXIMUM_DEPTH} levels deep. Pass a flatter value.")
        kind = type(value)
        if kind is str:  # as most values, or an integer
            return self._text(value)
        if kind is int:
            return self._integer(value)
        if isinstance(value, Enum) and (member := _by_name(value)) is not None:
            return member
        if isinstance(value, str):
            return self._text(value)
        if isinstance(value, int):
            return self._integer(value)
        if isinstance(value, float):
            return _float(value)
        if isinstance(value, Mapping):
            encoded = self.mapping(value, depth)
            return tagged("dict", encoded) if TAG in encoded else encoded
        if isinstance(value, list):
            return self.items(value, depth)
        if isinstance(value, tuple):
            return tagged("tuple", self.items(value, depth))
        if isinstance(value, (set, frozenset)):
            return tagged("set" if isinstance(value, set) else "frozenset", self._members(value, depth))
        return self._other(value)

    def items(self, values: Iterable[Any], depth: int) -> list[JSON]:
        encoded = []
        for index, item in enumerate(values):
            try:
                encoded.append(self.encode(item, depth - 1))
            except _Refused as refused:
                raise refused.at(f"[{index}]") from None
        return encoded

    def mapping(self, value: Mapping[Any, Any], depth: int) -> dict[str, JSON]:
        encoded: dict[str, JSON] = {}
        for key, item in value.items():
            if not isinstance(key, str):
                raise _Refused(
                    f"has the key {key!r:.{LONGEST_SHOWN}}, a {type(key).__name__}. JSON objects have text keys only."
                )
            try:
                name = self._text(key)
            except _Refused as refused:
                raise _Refused(refused.reason, is_key=True) from None
            try:
                encoded[name] = self.encode(item, depth - 1)
            except _Refused as refused:
                raise refused.at(f"[{key!r:.{LONGEST_SHOWN}}]") from None
        return encoded

    def _members(self, values: Iterable[Any], depth: int) -> list[JSON]:
        """The members in a fixed order, so that equal sets make equal calls."""
        encoded = self.items(values, depth)
        if self._takes_placeholder and placeholders(encoded):
            raise _Refused("is a set that holds RESULT, which may not fit into one. Pass a list.")
        return sorted(encoded, key=lambda item: json.dumps(item, sort_keys=True))

    def _other(self, value: Any) -> JSON:
        if isinstance(value, Placeholder):
            if not self._takes_placeholder:
                raise _Refused("is RESULT, which has a meaning in a later step only, as in chain(a.s(), b.s(RESULT)).")
            return RESULT_JSON
        if isinstance(value, bytes):
            self._spend(len(value) * 4 // 3)
        for kind in type(value).__mro__:
            if kind in _WRITERS:
                self._spend(50)
                name, write = _WRITERS[kind]
                return tagged(name, write(value))
        raise _Refused(
            f"is a {type(value).__module__}.{type(value).__qualname__}, which can't be stored as JSON. Pass plain data "
            "instead, such as an object's primary key."
        )

    def _text(self, value: str) -> str:
        self._spend(len(value))
        if "\x00" in value:
            raise _Refused("contains a NUL character, which PostgreSQL can't store. Remove it.")
        try:
            self._spend(len(value.encode()) - len(value))
        except UnicodeEncodeError:
            raise _Refused("contains half of a surrogate pair, which is not valid text.") from None
        return str.__str__(value)  # of a subclass, its text only

    def _integer(self, value: int) -> int:
        plain = int(value)  # of a subclass, its number only
        bits = plain.bit_length()
        if bits > _SMALL_BITS and abs(plain) >= _BEYOND_INTEGERS:
            raise _Refused(f"is an integer of more than {MAXIMUM_DIGITS:,} digits. Pass it as text.")
        self._spend(bits // 3)
        return plain

    def _spend(self, count: int) -> None:
        self._left -= count
        if self._left < 0:
            raise _TooLarge(
                f"The values take more than {self._limit:,} bytes as JSON, the most that I3TASKS allows "
                "(maximum_payload_bytes). Keep large data in a file, a bucket or a table, and pass where it is."
            )


def _float(value: float) -> JSON:
    if not math.isfinite(value):
        raise _Refused(f"is {value}, which JSON can't hold. Pass None or text instead.")
    # PostgreSQL's jsonb would give a large float back as an integer, and knows no negative zero.
    if "e+" in repr(value) or (value == 0 and math.copysign(1, value) < 0):
        return tagged("float", repr(float(value)))
    return float(value)


def _by_name(member: Enum) -> JSON:
    """The member by the name of its class; None if a worker could not find it by that (a local class, `A | B`)."""
    kind = type(member)
    known = enum_named(kind.__module__, kind.__qualname__)
    if known is not kind or kind.__module__ == "__main__" or kind.__members__.get(member.name) is not member:
        return None
    return tagged("enum", [kind.__module__, kind.__qualname__, member.name])


def _type_name(value: Any) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")


def _text_of(value: Any) -> str:
    try:
        return str(value)
    except BaseException as error:  # also SystemExit, which would take the worker with it
        return f"<{type(value).__qualname__} whose str() raised {type(error).__name__}>"


def _moment(value: datetime | time) -> JSON:
    """ISO 8601 text; with a ZoneInfo or a fold, a list of the wall clock's time, the zone's name and the fold."""
    zone = value.tzinfo.key if isinstance(value.tzinfo, ZoneInfo) else None
    if zone is None and not value.fold:
        return value.isoformat()
    wall = value if zone is None else value.replace(tzinfo=None)
    return [wall.isoformat(), zone, value.fold]


_WRITERS: dict[type, tuple[str, Callable[[Any], JSON]]] = {
    datetime: ("datetime", _moment),
    date: ("date", date.isoformat),
    time: ("time", _moment),
    timedelta: ("timedelta", lambda value: [value.days, value.seconds, value.microseconds]),
    UUID: ("uuid", str),
    Decimal: ("decimal", str),
    bytes: ("bytes", lambda value: b64encode(value).decode()),
}
