"""Checks of a schedule's fields: in I3TASKS, in `schedule_task`, in the admin, and in rows as they are read."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from hashlib import sha256
from typing import Any

from ..exceptions import ArgumentError
from .values import encode, encode_arguments

CATCH_UP = ("latest", "all", "none")
LONGEST_NAME = 200
LONGEST_PATH = 256
"""The length of the columns of executions."""


def problems(schedule: Mapping[str, Any]) -> dict[str, str]:
    """A sentence for each wrong field of a schedule, by the field's name."""
    found: dict[str, str] = {}
    for name, check in _CHECKS.items():
        if name in _OPTIONAL and schedule.get(name) is None:
            continue
        try:
            check(schedule.get(name))
        except (ValueError, ArgumentError) as error:
            found[name] = str(error)
    return found


def hash_key(module_name: str, func_name: str, cron: str, args: Any, *fields: Any) -> str:
    """The key of a schedule without a name: its task, and a hash of all its fields."""
    text = json.dumps(encode([module_name, func_name, cron, list(args), *fields], "fields"), sort_keys=True)
    return f"{module_name}.{func_name}"[-LONGEST_NAME:] + f"#{sha256(text.encode()).hexdigest()[:32]}"


def _check_text(value: object, longest: int = LONGEST_NAME) -> None:
    if not isinstance(value, str) or not 1 <= len(value) <= longest or "\x00" in value:
        raise ValueError(f"It must be text of 1 to {longest} characters, not {value!r}.")


def _check_path(value: object) -> None:
    _check_text(value, LONGEST_PATH)


def _check_arguments(value: object) -> None:
    if not isinstance(value, (list, tuple)):
        raise ValueError(f"It must be a list of positional arguments, not {value!r}.")
    encode_arguments(value, {})


def _check_keywords(value: object) -> None:
    if not isinstance(value, Mapping):
        raise ValueError(f"It must be a dict of keyword arguments, not {value!r}.")
    encode_arguments((), value)


def _check_flag(value: object) -> None:
    if not isinstance(value, bool):
        raise ValueError(f"It must be True or False, not {value!r}.")


def _check_catch_up(value: object) -> None:
    if value not in CATCH_UP:
        raise ValueError(f"It must be one of {', '.join(map(repr, CATCH_UP))}, not {value!r}.")


def _check_cron(value: object) -> None:
    from .crontab import validate  # settings without schedules do not need it

    validate(value)


def _check_zone(value: object) -> None:
    from .crontab import zone_named

    zone_named(value)


_CHECKS: dict[str, Callable[[object], object]] = {
    "module_name": _check_path,
    "func_name": _check_path,
    "cron": _check_cron,
    "args": _check_arguments,
    "kwargs": _check_keywords,
    "name": _check_text,
    "time_zone": _check_zone,
    "queue_name": _check_text,
    "enabled": _check_flag,
    "catch_up": _check_catch_up,
}
_OPTIONAL = {"name", "time_zone", "queue_name"}
