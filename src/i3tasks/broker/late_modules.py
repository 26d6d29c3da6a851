"""Puts off the execution of modules that Google's library imports, and that most processes never use.

`google.oauth2.service_account`, say, imports `cryptography`, 10 MB, to sign with a key file. A process that talks to an
emulator signs nothing. The library's modules import it as a whole and look into it when they make credentials, so it
can be the real module, executed when one of its names is first asked for, by them or by the project's own code.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from importlib.abc import Loader
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

from ..threads.forking import ForkBarrier

_SET_BEFORE = frozenset(
    ("__spec__", "__name__", "__package__", "__loader__", "__path__", "__file__", "__cached__", "__class__")
)
"""The attributes that an import sets and reads without executing the module."""

# Not the lock of `importing`: one thread would wait for it while it imports what the thread that holds it waits for.
_execution = ForkBarrier()
_executing: set[str] = set()
_answers: dict[str, set[str]] = {}
"""Names that late modules have already."""


def put_off(name: str) -> None:
    """Import a module without executing it, unless it has been imported.

    Threads that ask for its names wait until it is executed. An error in it is raised where they ask, each time.
    """
    if name in sys.modules:
        return
    finder: Any = _Finder(name)
    sys.meta_path.insert(0, finder)
    try:
        with suppress(ImportError):  # another version of the library may lack the module
            import_module(name)
    finally:
        sys.meta_path.remove(finder)


def answer(name: str, asked: str, value: object) -> None:
    """Let a module that is put off have this value, until it is executed: asking for it does not execute it."""
    module = sys.modules.get(name)
    if type(module) is _LateModule:
        _answers.setdefault(name, set()).add(asked)
        setattr(module, asked, value)


class _Finder:
    """Finds one module as usual, and lets `_Loader` load it."""

    def __init__(self, name: str) -> None:
        self._name = name

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name != self._name:
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader)
        return spec


class _Loader(Loader):
    """Makes the module, and leaves its execution to the first access."""

    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _LateModule(spec.name)

    def exec_module(self, module: Any) -> None:
        module.__spec__.loader = module.__loader__ = self._loader


class _LateModule(ModuleType):
    """A module that is executed, and becomes an ordinary one, when one of its names is asked for."""

    def __getattribute__(self, name: str) -> Any:
        if name not in _SET_BEFORE and name not in _answers.get(ModuleType.__getattribute__(self, "__name__"), ()):
            _execute(self)
        return ModuleType.__getattribute__(self, name)


def _execute(late: ModuleType) -> None:
    module: Any = late  # which is to become one of another class
    with _execution.held():
        is_late = type(late) is _LateModule and late.__name__ not in _executing
        if not is_late:  # another thread was quicker, or the module asks for names of its own
            return
        _executing.add(module.__name__)
        try:
            module.__loader__.exec_module(module)
        finally:
            _executing.discard(module.__name__)
        module.__class__ = ModuleType
