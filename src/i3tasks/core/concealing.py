"""Hides the arguments that a task declares `sensitive`: where calls are shown, and in texts that quote them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any
from urllib.parse import quote, quote_plus

from . import binding
from .values import JSON, decode

HIDDEN = "[hidden]"
MOST_TEXTS = 1000
"""Most texts that are looked for. With more of them, a text that may quote the arguments is hidden as a whole."""
SHORT = 4
"""Characters. A shorter text is hidden only where it stands alone: a 1 must not hide each 1 of a traceback."""

Conceal = Callable[[str], str]


def concealed(function: Callable[..., Any], sensitive: Collection[str], args: Any, kwargs: Any) -> tuple[Any, Any]:
    """The stored arguments of a call, with HIDDEN in the place of the sensitive ones.

    If the row holds something else than arguments, everything is hidden.
    """
    if not sensitive:
        return args, kwargs
    if not isinstance(args, list) or not isinstance(kwargs, dict):
        return HIDDEN, HIDDEN
    names = binding.names_of(function, len(args))
    shown = [HIDDEN if name in sensitive else value for name, value in zip(names, args, strict=True)]
    is_hidden = _hidden_keyword(function, sensitive)
    return shown, {name: HIDDEN if is_hidden(name) else value for name, value in kwargs.items()}


def concealer(function: Callable[..., Any], sensitive: Collection[str], args: Any, kwargs: Any) -> Conceal | None:
    """A function that hides the sensitive arguments of a call in a text; None if it has none."""
    if not sensitive:
        return None
    if not isinstance(args, list) or not isinstance(kwargs, dict):
        return lambda text: HIDDEN
    names = binding.names_of(function, len(args))
    is_hidden = _hidden_keyword(function, sensitive)
    values = [value for name, value in zip(names, args, strict=True) if name in sensitive]
    values += [value for name, value in kwargs.items() if is_hidden(name)]
    texts = {form for value in values for leaf in _leaves(value) for form in _forms(leaf)}
    return _hiding(texts)


def concealed_steps(value: Any, call: Callable[[str, str, Any, Any], tuple[Any, Any]]) -> Any:
    """Stored steps, at any depth, each with the arguments that `call` makes of its task's names and its own."""
    if isinstance(value, list):
        return [concealed_steps(item, call) for item in value]
    if not isinstance(value, dict):
        return value
    shown = {name: item if name in ("args", "kwargs") else concealed_steps(item, call) for name, item in value.items()}
    if "module_name" in value:
        names = str(value["module_name"]), str(value.get("func_name", ""))
        args, kwargs = call(*names, value.get("args") or [], value.get("kwargs") or {})
        shown |= {name: made for name, made in (("args", args), ("kwargs", kwargs)) if name in value}
    return shown


def _hidden_keyword(function: Callable[..., Any], sensitive: Collection[str]) -> Callable[[str], bool]:
    collects = binding.name_of_keywords(function)
    own = binding.parameters_of(function)
    return lambda name: name in sensitive or (collects in sensitive and name not in own)


def _leaves(value: JSON) -> Iterator[Any]:
    """The parts of the value, as they are stored and as the body gets them."""
    yield from _within(value)
    try:
        yield from _within(decode(value))
    except Exception:  # a row that no call has written
        return


def _within(value: Any) -> Iterator[Any]:
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, Mapping):
            waiting += item.values()
        elif isinstance(item, (list, tuple, set, frozenset)):
            waiting += item
        elif item is not None and not isinstance(item, bool):
            yield item


def _forms(leaf: Any) -> Iterator[str]:
    """How an error's text may spell the value."""
    if isinstance(leaf, bytes):
        yield repr(leaf)[2:-1]
        leaf = leaf.decode("utf-8", "replace")
    text = str(leaf)
    yield text
    yield repr(leaf)
    if isinstance(leaf, str):
        yield from (repr(text)[1:-1], json.dumps(text)[1:-1], quote(text), quote(text, safe=""), quote_plus(text))


def _hiding(texts: Collection[str]) -> Conceal:
    wanted = sorted(filter(str.strip, texts), key=len, reverse=True)
    if not wanted:
        return lambda text: text
    if len(wanted) > MOST_TEXTS:
        return lambda text: HIDDEN
    pattern = re.compile("|".join(_pattern(text) for text in wanted))
    return lambda text: pattern.sub(HIDDEN, text)


def _pattern(text: str) -> str:
    return re.escape(text) if len(text) >= SHORT else rf"(?<!\w){re.escape(text)}(?!\w)"
