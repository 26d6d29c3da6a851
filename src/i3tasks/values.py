"""Python values <-> the JSON that rows carry.

Plain JSON stays as it is. Five types that JSON lacks are written as `{"__i3tasks__": TYPE, "value": TEXT}` and
come back as themselves: datetime, date, timedelta, UUID, Decimal. A tuple becomes a list. Anything else is
refused with the path of the value in question, before a row is written.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from .exceptions import ArgumentError

TAG = "__i3tasks__"
MAXIMUM_DEPTH = 100


class Placeholder:
    """The type of RESULT: in a later step's arguments, what the step before returns; after a group, a list."""

    def __repr__(self) -> str:
        return "RESULT"


RESULT: Any = Placeholder()

_WRITERS: dict[type, tuple[str, Callable[[Any], Any]]] = {
    datetime: ("datetime", datetime.isoformat),
    date: ("date", date.isoformat),
    timedelta: ("timedelta", lambda value: [value.days, value.seconds, value.microseconds]),
    UUID: ("uuid", str),
    Decimal: ("decimal", str),
    Placeholder: ("result", lambda _: None),
}
_READERS: dict[str, Callable[[Any], Any]] = {
    "datetime": datetime.fromisoformat,
    "date": date.fromisoformat,
    "timedelta": lambda parts: timedelta(*parts),
    "uuid": UUID,
    "decimal": Decimal,
    "float": float,
    "dict": lambda value: {key: decode(item) for key, item in value.items()},
}


def encode(value: Any, path: str) -> Any:
    """`value` as JSON data. `path` names it in errors, e.g. `args[0]` or `kwargs['when']`.

    Raises ArgumentError for what JSON, or PostgreSQL's reading of it, can't hold.
    """
    return _encode(value, path, MAXIMUM_DEPTH)


def _encode(value: Any, path: str, depth: int) -> Any:
    if value is None or value is True or value is False:
        return value
    if depth == 0:
        raise ArgumentError(f"{path} is nested more than {MAXIMUM_DEPTH} levels deep. Pass a flatter value.")
    if isinstance(value, str):
        return _text(value, path)
    if isinstance(value, int):
        return _integer(value, path)
    if isinstance(value, float):
        return _float(value, path)
    if isinstance(value, (list, tuple)):
        return [_encode(item, f"{path}[{index}]", depth - 1) for index, item in enumerate(value)]
    if isinstance(value, Mapping):
        return _mapping(value, path, depth)
    for kind in type(value).__mro__:
        if kind in _WRITERS:
            name, write = _WRITERS[kind]
            return {TAG: name, "value": write(value)}
    raise ArgumentError(
        f"{path} is a {type(value).__module__}.{type(value).__qualname__}, which can't be stored as JSON. "
        "Pass plain data instead, such as an object's primary key."
    )


def _text(value: str, path: str) -> str:
    if "\x00" in value:
        raise ArgumentError(f"{path} contains a NUL character, which PostgreSQL can't store. Remove it.")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ArgumentError(f"{path} contains half of a surrogate pair, which is not valid text.") from None
    return str.__str__(value)  # the value of an Enum that is text, too


def _integer(value: int, path: str) -> int:
    if value.bit_length() > 13_000:  # about 4,000 digits; Python refuses to print more than 4,300
        raise ArgumentError(f"{path} is an integer of more than 3,900 digits. Pass it as text.")
    return int(value)


def _float(value: float, path: str) -> Any:
    if not math.isfinite(value):
        raise ArgumentError(f"{path} is {value}, which JSON can't hold. Pass None or text instead.")
    # PostgreSQL's jsonb would give a large float back as an integer, and knows no negative zero.
    if "e+" in repr(value) or (value == 0 and math.copysign(1, value) < 0):
        return {TAG: "float", "value": repr(float(value))}
    return float(value)


def _mapping(value: Mapping[Any, Any], path: str, depth: int) -> dict[str, Any]:
    encoded: dict[str, Any] = {}
    for key, item in value.items():
        if not isinstance(key, str):
            raise ArgumentError(
                f"{path} has the key {key!r}, a {type(key).__name__}. JSON objects have text keys only."
            )
        encoded[_text(key, f"a key of {path}")] = _encode(item, f"{path}[{key!r}]", depth - 1)
    return {TAG: "dict", "value": encoded} if TAG in encoded else encoded


def decode(value: Any) -> Any:
    """The inverse of `encode`. JSON that `encode` did not write (older rows) comes back unchanged."""
    if isinstance(value, list):
        return [decode(item) for item in value]
    if isinstance(value, dict):
        return _decode_mapping(value)
    return value


def _decode_mapping(value: dict[str, Any]) -> Any:
    kind = value.get(TAG)
    if isinstance(kind, str) and kind in _READERS and value.keys() == {TAG, "value"}:
        # Whoever wrote what can't be read, it was not `encode`.
        with suppress(ValueError, TypeError, AttributeError, ArithmeticError):
            return _READERS[kind](value["value"])
    return {key: decode(item) for key, item in value.items()}


def encode_arguments(args: Any, kwargs: Mapping[str, Any]) -> tuple[list[Any], dict[str, Any]]:
    """The arguments of one call as JSON data, or ArgumentError naming the argument that can't be."""
    encoded_args = [_encode(value, f"args[{index}]", MAXIMUM_DEPTH) for index, value in enumerate(args)]
    return encoded_args, {
        _text(key, "a keyword"): _encode(value, f"kwargs[{key!r}]", MAXIMUM_DEPTH) for key, value in kwargs.items()
    }


def encode_result(value: Any) -> Any:
    """A return value as JSON data; what JSON can't hold is kept as its `str()`, for reading by people.

    Never raises, whatever the value's own methods do: the task has succeeded.
    """
    try:
        return encode(value, "result")
    except BaseException:
        return clean_text(_shown(value))


def _shown(value: Any) -> str:
    try:
        return str(value)
    except BaseException as error:  # also SystemExit, which would take the worker with it
        return f"<{type(value).__qualname__} whose str() raised {type(error).__name__}>"


def clean_text(text: str, limit: int | None = None) -> str:
    """`text` as any database will take it, cut in the middle to `limit` characters."""
    text = text.replace("\x00", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace").decode()
    if limit is None or len(text) <= limit:
        return text
    head, tail = limit // 4, limit - limit // 4 - 5
    return f"{text[:head]}\n...\n{text[len(text) - tail :]}"
