"""The try that the current context runs, for events and for what its body logs."""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar, Token
from types import MappingProxyType
from typing import Any

Facts = Mapping[str, Any]
NO_FACTS: Facts = MappingProxyType({})

_facts: ContextVar[Facts] = ContextVar("i3tasks_run", default=NO_FACTS)


def run_facts() -> Facts:
    """The facts of the try that runs in this context, by the names in `catalogue.TRY`; none outside of a body."""
    return _facts.get()


def bind_run(facts: Facts) -> None:
    """Let events and log lines have these facts in this context, for as long as it lasts."""
    _facts.set(facts)


class run_bound:  # lower case, because it is used as a function; a generator would take three times as long
    """Let events and log lines of the block, and of the tasks and threads that it starts, have these facts."""

    __slots__ = ("_bound", "_token")

    def __init__(self, facts: Facts) -> None:
        self._bound = facts

    def __enter__(self) -> None:
        self._token: Token[Facts] = _facts.set(self._bound)

    def __exit__(self, *_: object) -> None:
        _facts.reset(self._token)
