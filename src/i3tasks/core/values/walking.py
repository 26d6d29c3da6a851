"""Walks over encoded values: RESULT, and a form for people to read."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from datetime import time
from typing import Any

from .decoding import READERS
from .form import CONTAINERS, JSON, MAXIMUM_STORED_DEPTH, parts, tagged


def with_result(value: JSON, result: JSON, depth: int = MAXIMUM_STORED_DEPTH) -> JSON:
    """Encoded `value` with `result` in the place of each RESULT. A caller's data is never taken for RESULT.

    A value that is nested too deeply to be decoded stays as it is.
    """
    if depth == 0 or not isinstance(value, (list, dict)):
        return value
    if isinstance(value, list):
        return [with_result(item, result, depth - 1) for item in value]
    kind, inner = parts(value)
    if kind == "result":
        return result
    if kind in CONTAINERS:
        return tagged(kind, with_result(inner, result, depth - 1))
    if kind and kind != "dict":
        return value
    changed = {key: with_result(item, result, depth - 1) for key, item in (inner if kind else value).items()}
    return tagged("dict", changed) if kind else changed


def placeholders(value: JSON, depth: int = MAXIMUM_STORED_DEPTH) -> int:
    """The number of RESULTs in an encoded value."""
    if depth == 0 or not isinstance(value, (list, dict)):
        return 0
    if isinstance(value, list):
        return _placeholders_of(value, depth)
    kind, inner = parts(value)
    if kind in CONTAINERS:
        return placeholders(inner, depth - 1)
    if kind and kind != "dict":
        return int(kind == "result")
    return _placeholders_of((inner if kind else value).values(), depth)


def _placeholders_of(values: Iterable[JSON], depth: int) -> int:
    # Most values are plain ones, for which a call would take long.
    return sum([placeholders(item, depth - 1) for item in values if isinstance(item, (list, dict))])


def shown(value: JSON, depth: int = MAXIMUM_STORED_DEPTH) -> Any:
    """Stored JSON for people to read: as `decode`, but in types that Django's JSON encoder takes, and never raising."""
    if depth == 0:
        return "..."
    if isinstance(value, list):
        return [shown(item, depth - 1) for item in value]
    if not isinstance(value, dict):
        return value
    kind, inner = parts(value)
    if kind in CONTAINERS:
        return shown(inner, depth - 1)
    if kind and kind != "dict":
        return _shown_leaf(kind, inner, value)
    return {key: shown(item, depth - 1) for key, item in (inner if kind else value).items()}


def shown_keywords(kwargs: Mapping[str, JSON]) -> dict[str, Any]:
    """`shown` for keyword arguments. Their names are a caller's: together they are no tagged value."""
    return {key: shown(item) for key, item in kwargs.items()}


def _shown_leaf(kind: str, inner: JSON, value: JSON) -> Any:
    if kind == "result":
        return "RESULT"
    try:
        found = None if kind in ("enum", "bytes", "unavailable") else READERS[kind](inner)
        return ".".join(inner) if kind == "enum" else inner if found is None else _plain(found)
    except Exception:  # not written by `encode`
        return value


def _plain(value: Any) -> Any:
    """JSON knows no time with a zone, and no NaN."""
    is_plain = not isinstance(value, time) and not (isinstance(value, float) and not math.isfinite(value))
    return value if is_plain else str(value)
