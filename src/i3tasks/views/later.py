"""Views that are imported at their first request: a command that only checks the URLs needs none of them."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from importlib import import_module
from typing import Any

from asgiref.sync import markcoroutinefunction


class Later:
    """Stands for the view `name` of the module `home`: Django may ask for its attributes, and call it."""

    def __init__(self, home: str, name: str) -> None:
        self.__module__, self.__name__, self.__qualname__ = home, name, name  # what Django and tracers call it

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._view(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self._view, name)  # what decorators have noted: csrf_exempt, non_atomic_requests

    @cached_property
    def _view(self) -> Callable[..., Any]:
        view: Callable[..., Any] = getattr(import_module(self.__module__), self.__name__)
        return view


def later(home: str, name: str) -> Later:
    """The plain view `name` of the module `home`."""
    return Later(home, name)


def later_async(home: str, name: str) -> Later:
    """The coroutine view `name` of the module `home`."""
    return markcoroutinefunction(Later(home, name))
