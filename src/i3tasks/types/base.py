"""The common parts of the types of I3TASKS: wrong values are refused in sentences that say what to write."""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import MISSING, fields
from string import ascii_letters, digits
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import urlsplit

from django.core.exceptions import ImproperlyConfigured

from ..core.frozen import Frozen

_FIRST_OF_NAME = frozenset(ascii_letters + digits)
_OTHERS_OF_NAME = _FIRST_OF_NAME | {*"-._~%+"}
_EMAIL = r"[^@\s:/]+@[^@\s:/]+"  # compiled where it is used: few settings have one


def require_name(name: str, value: object) -> None:
    if not isinstance(value, str) or len(value) > 100 or not _is_name(value):
        raise ImproperlyConfigured(
            f"{name} must be 1 to 100 letters, digits, or any of - . _ ~ % +, starting with a letter or digit, "
            f"not {value!r}."
        )


def _is_name(text: str) -> bool:
    return text[:1] in _FIRST_OF_NAME and _OTHERS_OF_NAME.issuperset(text)


def require_url(name: str, value: object, example: str) -> None:
    try:
        parts = urlsplit(value) if isinstance(value, str) else None
        is_full = parts is not None and parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:  # brackets around what is no IPv6 address
        is_full = False
    if not is_full:
        raise ImproperlyConfigured(f"{name} must be a full URL such as {example!r}, not {value!r}.")


def require_identity(whose: str, service_account: object, audience: object) -> None:
    """`whose` is appended to the settings' names in the error: "" or " of queue 'mail'"."""
    if service_account is not None and not (isinstance(service_account, str) and re.fullmatch(_EMAIL, service_account)):
        raise ImproperlyConfigured(
            f"service_account{whose} must be the e-mail of a service account alone, such as "
            f"'push@my-project.iam.gserviceaccount.com', not {service_account!r}. None: requests are not signed."
        )
    if audience is not None and not (isinstance(audience, str) and audience and not audience.isspace()):
        raise ImproperlyConfigured(
            f"audience{whose} must be text, such as the URL that is called, not {audience!r}. None: that URL."
        )


def require_complete(cls: type[Any], given: list[str]) -> None:
    needed = [item.name for item in fields(cls) if item.default is MISSING and item.default_factory is MISSING]
    missing = [name for name in needed if name not in given]
    if missing:
        raise ImproperlyConfigured(f"{cls.__name__} needs {', '.join(needed)}; {', '.join(missing)} is missing.")


class Mistake:
    """Stands in the settings for a value that is wrong, until the value is asked for: then it raises why."""

    error: ImproperlyConfigured

    def __init__(self, error: ImproperlyConfigured) -> None:
        frame = sys._getframe(2)  # the settings, which `Checked.__new__` was called from
        error.add_note(f"It is in {frame.f_code.co_filename}, line {frame.f_lineno}.")
        object.__setattr__(self, "error", error)

    def reveal(self, *_: Any) -> NoReturn:
        """Raise the error."""
        raise self.error.with_traceback(None)

    if not TYPE_CHECKING:
        __iter__ = __getattr__ = reveal
        __dataclass_fields__ = property(reveal)  # for `dataclasses.replace`


class Checked(Frozen):
    """Refuses an unknown or misspelt argument with a sentence, before `__init__` raises a TypeError.

    While Django imports the settings, whose traceback would hide the sentence, a refused value is a Mistake.
    """

    __slots__ = ()

    if not TYPE_CHECKING:  # type checkers read the signature that dataclass makes

        def __new__(cls, *args: Any, **kwargs: Any) -> Any:
            if not _are_settings_being_imported():
                return cls._made(args, kwargs)
            for value in _parts([*args, *kwargs.values()]):
                if isinstance(value, Mistake):
                    return value
            try:
                made = cls._made(args, kwargs)
                if args or kwargs:
                    made.__init__(*args, **kwargs)  # once more than needed: its refusal can't be caught otherwise
            except ImproperlyConfigured as error:
                return Mistake(error)
            return made

        @classmethod
        def _made(cls, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            names = [item.name for item in fields(cls)]
            if len(args) > len(names):
                raise ImproperlyConfigured(f"{cls.__name__} takes {len(names)} values at most: {', '.join(names)}.")
            for name in kwargs:
                if name not in names:
                    close = difflib.get_close_matches(name, names, 1)
                    hint = f"Did you mean {close[0]!r}?" if close else f"It has: {', '.join(names)}."
                    raise ImproperlyConfigured(f"{cls.__name__} has no setting {name!r}. {hint}")
                if name in names[: len(args)]:
                    raise ImproperlyConfigured(f"{cls.__name__} is given {name} twice: by its place and by its name.")
            if args or kwargs:  # pickle and copy pass none
                require_complete(cls, [*names[: len(args)], *kwargs])
            return object.__new__(cls)


def _are_settings_being_imported() -> bool:
    conf = sys.modules.get("django.conf")
    return conf is not None and not conf.settings.configured


def _parts(values: Iterable[Any]) -> Iterator[Any]:
    for value in values:
        yield value
        if isinstance(value, (list, tuple)):
            yield from value
