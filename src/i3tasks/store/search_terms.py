"""The values of a search's fields, read from text: instants and windows of time, ids, states.

30m                         thirty minutes ago; also s, h, d and w, and several: 1d12h
2026-11-28T14:30            that minute in the current time zone; also with seconds, or with an offset
2026-11-28                  its midnight; as the end of a window, the next one
2h, 2h..                    a window: from two hours ago on
2026-11-28..2026-11-29      these two days
..1d                        what is older than a day
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from uuid import UUID

from django.utils import timezone
from django.utils.dateparse import parse_date, parse_datetime

from ..exceptions import SearchError
from .states import State

MOST_KEYS = 1000
LARGEST_ID = 2**63 - 1
LONGEST_TEXT = 500
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_AGE = re.compile(r"(?:\d{1,9}[smhdw])+")
_AN_INSTANT = "an age (90s, 30m, 2h, 7d), a date (2026-11-28) or a time (2026-11-28T14:30)"


@dataclass(frozen=True, slots=True)
class Window:
    """A span of time, from `start` on and before `end`. None: without a limit."""

    start: datetime | None = None
    end: datetime | None = None

    def __bool__(self) -> bool:
        return self != ALWAYS

    def __str__(self) -> str:
        return "..".join("" if limit is None else limit.isoformat() for limit in (self.start, self.end))


ALWAYS = Window()


@dataclass(frozen=True, slots=True)
class Keys:
    """Executions by name: their ids, their uuids, and the ids of their tries."""

    ids: tuple[int, ...] = ()
    uuids: tuple[UUID, ...] = ()
    tries: tuple[int, ...] = ()

    def __str__(self) -> str:
        return ",".join([*map(str, self.ids), *map(str, self.uuids), *(f"try:{pk}" for pk in self.tries)])


def window(text: str, now: datetime) -> Window:
    """The window that a text describes. Raises SearchError."""
    first, dots, last = text.partition("..")
    found = Window(
        instant(first, now) if first.strip() else None,
        instant(last, now, is_end=True) if dots and last.strip() else None,
    )
    if found.start is not None and found.end is not None and found.start >= found.end:
        raise SearchError(f"{text!r} ends before it begins: write the earlier instant first (2h..30m).")
    return found


def instant(text: str, now: datetime, *, is_end: bool = False) -> datetime:
    """The instant that a text describes. Raises SearchError."""
    text = text.strip()
    try:
        if _AGE.fullmatch(text):
            return now - age(text)
        if (moment := parse_datetime(text)) is not None and len(text) > len("2026-11-28"):
            return _aware(moment)
        if (day := parse_date(text)) is not None:
            return _aware(datetime.combine(day + timedelta(days=is_end), time.min))
    except (ValueError, OverflowError) as error:  # February 30; a time that is before the year 1 in UTC
        raise SearchError(f"{text!r} is no time: {error}. Write {_AN_INSTANT}.") from None
    raise SearchError(f"{text!r} is no time. Write {_AN_INSTANT}; or two of them, 2h..30m.")


def _aware(moment: datetime) -> datetime:
    found = moment if timezone.is_aware(moment) else timezone.make_aware(moment)
    found.astimezone(UTC)  # raises OverflowError for what no database can compare, there
    return found


def age(text: str) -> timedelta:
    """The length of time that a text such as 90s, 2h or 1d12h describes. Raises SearchError."""
    if not _AGE.fullmatch(text.strip()):
        raise SearchError(f"{text!r} is no length of time. Write 90s, 30m, 2h, 7d or 1d12h.")
    try:
        parts = re.findall(r"(\d+)([smhdw])", text)
        return sum((timedelta(**{_UNITS[unit]: int(number)}) for number, unit in parts), timedelta())
    except OverflowError:
        raise SearchError(f"{text!r} is too long a time. Write a shorter one.") from None


def keys(texts: Iterable[str]) -> Keys:
    """The executions that are named: each by its id, its uuid, or `try:` and the id of a try. Raises SearchError."""
    ids: list[int] = []
    uuids: list[UUID] = []
    tries: list[int] = []
    for name in [name for text in texts for name in re.split(r"[\s,]+", text.strip()) if name]:
        kind, _, number = name.rpartition(":")
        if kind == "try" and _is_id(number):
            tries.append(int(number))
        elif _is_id(name):
            ids.append(int(name))
        else:
            uuids.append(_uuid(name))
    if len(ids) + len(uuids) + len(tries) > MOST_KEYS:
        raise SearchError(f"Name at most {MOST_KEYS} executions at a time.")
    return Keys(tuple(dict.fromkeys(ids)), tuple(dict.fromkeys(uuids)), tuple(dict.fromkeys(tries)))


def states(texts: Iterable[str]) -> tuple[State, ...]:
    """The states that are named, in their order. Raises SearchError."""
    names = {name.lower() for text in texts for name in re.split(r"[\s,]+", text.strip()) if name}
    if unknown := sorted(names - set(State.values)):
        raise SearchError(f"{unknown[0]!r} is no state. There are: {', '.join(State.values)}.")
    return tuple(state for state in State if state.value in names)


def number(text: str) -> int:
    """A whole number from 1 on. Raises SearchError."""
    if not _is_id(text) or int(text) < 1:
        raise SearchError(f"{text[:30]!r} is no whole number from 1 on. Write one, such as 3.")
    return int(text)


def plain(text: str) -> str:
    """A text that both databases take. Raises SearchError."""
    if len(text) > LONGEST_TEXT:
        raise SearchError(f"Write at most {LONGEST_TEXT} characters.")
    if "\x00" in text or any("\ud800" <= character <= "\udfff" for character in text):
        raise SearchError("It holds a character that no text in the database can hold. Leave it out.")
    return text


def one(texts: Sequence[str]) -> str:
    """The text of a field that takes one. Raises SearchError."""
    if len(texts) > 1:
        raise SearchError("Give it once.")
    return plain(texts[0].strip()) if texts else ""


def _is_id(text: str) -> bool:
    if not (text.isascii() and text.isdigit()):
        return False
    if len(text) > len(str(LARGEST_ID)) or int(text) > LARGEST_ID:
        raise SearchError(f"{text[:30]!r} has too many digits.")
    return True


def _uuid(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise SearchError(
            f"{text[:60]!r} is neither an id, nor a uuid, nor `try:` and the id of a try. Write one."
        ) from None
