"""Frozen dataclasses that inherit their methods: `dataclass` writes and compiles each one's own at every start."""

from __future__ import annotations

import dataclasses
from dataclasses import MISSING, Field, FrozenInstanceError, fields
from typing import TYPE_CHECKING, Any, NoReturn


class _Signature:
    """The signature of a class, made when it is asked for: by `help()`, say."""

    def __get__(self, _: object, owner: type[Any]) -> Any:
        from inspect import Parameter, Signature

        def default(item: Field[Any]) -> Any:
            made = _default(item)
            return Parameter.empty if made is MISSING else made

        kind = Parameter.POSITIONAL_OR_KEYWORD
        return Signature([Parameter(it.name, kind, default=default(it), annotation=it.type) for it in fields(owner)])


class Frozen:
    """The base of frozen dataclasses that inherit their methods. A class checks its values in `__post_init__`."""

    __slots__ = ()

    if not TYPE_CHECKING:  # type checkers know those that `dataclass` would make

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            given = {**dict(zip(self.__match_args__, args, strict=False)), **kwargs}
            if len(given) < len(args) + len(kwargs):
                raise TypeError(f"{type(self).__name__} is given a value too many, or one of them twice")
            for name, item in self.__dataclass_fields__.items():
                if not item.init:
                    continue  # `__post_init__` sets it
                value = given.pop(name) if name in given else _default(item)
                if value is MISSING:
                    raise TypeError(f"{type(self).__name__} needs the argument {name!r}")
                object.__setattr__(self, name, value)
            for name in given:
                raise TypeError(f"{type(self).__name__} got an unexpected keyword argument {name!r}")
            self.__post_init__()

        __signature__ = _Signature()

        def __post_init__(self) -> None:
            """Check the values."""

        def __setattr__(self, name: str, _: object) -> NoReturn:
            raise FrozenInstanceError(f"cannot assign to field {name!r}")

        def __delattr__(self, name: str) -> NoReturn:
            raise FrozenInstanceError(f"cannot delete field {name!r}")

        def __getstate__(self) -> dict[str, Any]:
            return {item.name: getattr(self, item.name) for item in fields(self)}

        def __setstate__(self, state: dict[str, Any]) -> None:
            for name, value in state.items():
                object.__setattr__(self, name, value)

        def __repr__(self) -> str:
            shown = [f"{item.name}={getattr(self, item.name)!r}" for item in fields(self) if item.repr]
            return f"{type(self).__qualname__}({', '.join(shown)})"

        def __eq__(self, other: object) -> bool:
            return _compared(self) == _compared(other) if type(other) is type(self) else NotImplemented

        def __hash__(self) -> int:
            return hash(_compared(self))


if TYPE_CHECKING:
    from dataclasses import dataclass as dataclass
else:

    def dataclass(*, frozen: bool) -> Any:
        """Make dataclasses of classes that inherit their methods, and that they are frozen, from `Frozen`.

        They have no slots: to give a class slots, `dataclass` makes it a second time.
        """

        def made(cls: type[Any]) -> type[Any]:
            made = dataclasses.dataclass(init=False, repr=False, eq=False)(cls)
            made.__dataclass_params__.frozen = True  # for subclasses, which must be frozen, too
            return made

        return made


def _default(item: Field[Any]) -> Any:
    """The field's value where none is given; MISSING if one must be."""
    return item.default if item.default_factory is MISSING else item.default_factory()


def _compared(value: Any) -> tuple[Any, ...]:
    return tuple(getattr(value, item.name) for item in fields(value) if item.compare)
