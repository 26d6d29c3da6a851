"""The form of tagged values, `{"__i3tasks__": TYPE, "value": JSON}`, which encoding, decoding and walks share."""

from __future__ import annotations

import sys
from collections.abc import Callable
from enum import Enum
from typing import Any

TAG = "__i3tasks__"
MAXIMUM_DEPTH = 100
MAXIMUM_DIGITS = 3_900  # of an integer; Python refuses to print more than 4,300
MAXIMUM_STORED_DEPTH = 250
"""Levels of stored JSON: a tagged value takes two."""
LONGEST_SHOWN = 80
JSON = Any

CONTAINERS: dict[str, Callable[[list[Any]], Any]] = {"tuple": tuple, "set": set, "frozenset": frozenset}
"""Tagged values that hold other values."""


class Placeholder:
    """The type of RESULT: in a later step's arguments, the previous step's result; after a group, a list."""

    def __repr__(self) -> str:
        return "RESULT"


RESULT: Any = Placeholder()
RESULT_JSON: JSON = {TAG: "result", "value": None}
"""RESULT as a row carries it."""


def tagged(kind: str, value: JSON) -> JSON:
    return {TAG: kind, "value": value}


def parts(value: dict[str, JSON]) -> tuple[str, JSON]:
    """The kind of a tagged value, and what it holds; "" for a plain dict."""
    kind = value.get(TAG)
    if not isinstance(kind, str) or value.keys() != {TAG, "value"}:
        return "", None
    inner = value["value"]
    needed = dict if kind == "dict" else list if kind in CONTAINERS else object
    return (kind, inner) if isinstance(inner, needed) else ("", None)


def enum_named(module: str, qualname: str) -> type[Enum] | None:
    """The enum class of an imported module. Nothing is imported or called to find it, since a row names it."""
    found: Any = sys.modules.get(module)
    for name in qualname.split("."):
        found = vars(found).get(name) if isinstance(found, (type(sys), type)) else None
    return found if isinstance(found, type) and issubclass(found, Enum) else None
