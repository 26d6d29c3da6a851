"""Whether arguments fit a function, and what each of its parameters gets. The function is never called."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import lru_cache, wraps
from typing import TYPE_CHECKING, Any

from ..exceptions import ArgumentError

if TYPE_CHECKING:
    from .values import JSON

Function = Callable[..., Any]
_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def problem(function: Function, args: Sequence[Any], kwargs: Mapping[str, Any], given: Collection[str] = ()) -> str:
    """Why the arguments don't fit; "" if they do. The parameters named in `given` are filled by the worker."""
    for name in given:
        if name in kwargs:
            return f"{name} is given by the worker, so leave it out"
    return _problem_of_shape(function, len(args), (*kwargs, *given))


def takes(function: Function, name: str) -> bool:
    """Whether the function takes a keyword argument of that name."""
    parameters = _signature(function).parameters
    found = parameters.get(name)
    if found is not None:
        return found.kind not in (found.POSITIONAL_ONLY, found.VAR_POSITIONAL)
    return any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())


def by_keyword(function: Function, name: str) -> Function:
    """The function, taking by keyword the parameter `name` that stands first; the function itself if another does.

    So callers' positional arguments begin with the second parameter, wherever signatures and calls are looked at.
    """
    signature = _signature(function)
    parameters = [*signature.parameters.values()]
    if not parameters or parameters[0].name != name or parameters[0].kind not in _POSITIONAL:
        return function
    first, *others = parameters

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        return function(kwargs.pop(name), *args, **kwargs)

    @wraps(function)
    async def acall(*args: Any, **kwargs: Any) -> Any:
        return await function(kwargs.pop(name), *args, **kwargs)

    made: Function = acall if inspect.iscoroutinefunction(function) else call
    at = len(others) - bool(others and others[-1].kind is inspect.Parameter.VAR_KEYWORD)
    others.insert(at, first.replace(kind=inspect.Parameter.KEYWORD_ONLY))
    made.__signature__ = signature.replace(parameters=others)  # type: ignore[attr-defined]
    return made


def takes_argument(function: Function, name: str) -> bool:
    """Whether the function has a parameter of that name, or takes any keyword."""
    return name in _signature(function).parameters or takes(function, name)


def by_parameter(function: Function, args: Sequence[JSON], kwargs: Mapping[str, JSON]) -> dict[str, JSON]:
    """The encoded value of each parameter, with defaults filled in, however the arguments are spelt."""
    signature = _signature(function)
    values = signature.bind_partial(*args, **kwargs).arguments
    for name, parameter in signature.parameters.items():
        if name not in values and parameter.default is not parameter.empty:
            values[name] = _encoded_default(parameter.default)
    return values


def parameters_of(function: Function) -> Collection[str]:
    """The names of the function's parameters."""
    return _signature(function).parameters.keys()


def names_of(function: Function, count: int) -> list[str]:
    """The parameter that each of `count` positional arguments goes to; "" for one too many."""
    parameters = _signature(function).parameters.values()
    names = [item.name for item in parameters if item.kind in _POSITIONAL]
    others = next((item.name for item in parameters if item.kind is item.VAR_POSITIONAL), "")
    return [*names, *[others] * (count - len(names))][:count]


def name_of_keywords(function: Function) -> str:
    """The name of its `**kwargs`; "" without."""
    parameters = _signature(function).parameters.values()
    return next((item.name for item in parameters if item.kind is item.VAR_KEYWORD), "")


def _encoded_default(value: Any) -> JSON:
    from .values import encode  # late: a process that only defines tasks needs no JSON

    try:
        return encode(value, "default")
    except ArgumentError:  # no caller can pass such a value, so it is the only one
        return "a default that JSON can't hold"


@lru_cache(maxsize=10_000)
def _problem_of_shape(function: Function, positional: int, keywords: tuple[str, ...]) -> str:
    """Why the function does not take so many positional arguments and these keywords. Their values don't matter."""
    try:
        _signature(function).bind(*[None] * positional, **dict.fromkeys(keywords))
    except TypeError as error:
        return str(error)
    return ""


@lru_cache(maxsize=10_000)
def _signature(function: Function) -> inspect.Signature:
    return inspect.signature(function)
