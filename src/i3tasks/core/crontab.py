"""Cron expressions: which slots lie between two instants, in a time zone.

Five fields (minute, hour, day of month, month, day of week) in croniter's syntax, or an alias such as `@daily`. Where
both day fields are restricted, a day that fits either counts.

When the clocks change, an expression that names hours follows the wall clock, and each slot runs exactly once: a time
that does not exist moves to the first instant after the gap, and a time that comes twice counts the first time. An
expression for every hour (`*/15 * * * *`) follows elapsed time: it goes on during the hour that comes twice.
"""

from __future__ import annotations

import heapq
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from functools import lru_cache
from zoneinfo import ZoneInfo

MAXIMUM_LENGTH = 200
LATE = timedelta(minutes=5)
"""A slot up to this old is late, and runs. An older one was missed: the catch-up policy decides whether it runs."""
MOST_AT_ONCE = 1000
ALIASES = ("@hourly", "@daily", "@midnight", "@weekly", "@monthly", "@yearly", "@annually")
_FIELDS = (
    "minute (0 to 59)",
    "hour (0 to 23)",
    "day of month (1 to 31, or L)",
    "month (1 to 12, or jan to dec)",
    "day of week (0 to 7, or sun to sat)",
)
_NAMES = {name: number for number, name in enumerate(["sun", "mon", "tue", "wed", "thu", "fri", "sat"])} | {
    name: number
    for number, name in enumerate(
        ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"], 1
    )
}
_RANGE = re.compile(r"(\w+)-(\w+)(/\d+)?", re.ASCII)
_EVERY_HOUR = set(range(24))
_LEAP_YEAR = datetime(2000, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Crontab:
    """A valid expression in a time zone. Instants are aware; slots are given in UTC."""

    expression: str
    zone: tzinfo

    def between(self, after: datetime, until: datetime | None = None) -> Iterator[datetime]:
        """The slots later than `after` and not later than `until`, in order; endless (or nearly so) without `until`."""
        last = after
        for slot in heapq.merge(*self._streams(after)):
            if until is not None and slot > until:
                return
            if slot > last:
                yield slot
                last = slot

    def next(self, after: datetime) -> datetime | None:
        """The first slot later than `after`."""
        return next(self.between(after), None)

    def newest(self, after: datetime, until: datetime, limit: int) -> tuple[list[datetime], bool]:
        """The last `limit` slots of `between(after, until)`, and whether there are more; at bounded cost."""
        window = timedelta(hours=1)
        while True:
            since = max(after, until - window)
            slots = list(self.between(since, until))
            if since == after or len(slots) > limit:
                return slots[-limit:], len(slots) > limit
            window *= 2

    def _streams(self, after: datetime) -> list[Iterator[datetime]]:
        wall = after.astimezone(self.zone).replace(tzinfo=None, second=0, microsecond=0)
        if not _is_for_every_hour(self.expression):
            return [self._by_wall_clock(wall)]
        return [self._by_elapsed_time(wall, 0), self._by_elapsed_time(wall - self._overlap(wall), 1)]

    def _by_wall_clock(self, start: datetime) -> Iterator[datetime]:
        for wall in _walls(self.expression, start):
            yield self._instant(wall, 0) or self._end_of_gap(wall)

    def _by_elapsed_time(self, start: datetime, fold: int) -> Iterator[datetime]:
        for wall in _walls(self.expression, start):
            instant = self._instant(wall, fold)
            if instant is not None:
                yield instant

    def _instant(self, wall: datetime, fold: int) -> datetime | None:
        """The instant at which the clock shows `wall`, for the first (fold 0) or second time. None: it never does."""
        instant = wall.replace(tzinfo=self.zone, fold=fold).astimezone(UTC)
        return instant if instant.astimezone(self.zone).replace(tzinfo=None) == wall else None

    def _offset(self, wall: datetime, fold: int) -> timedelta:
        return wall.replace(tzinfo=self.zone, fold=fold).utcoffset() or timedelta()

    def _overlap(self, wall: datetime) -> timedelta:
        """By how much the clock is put back, if `wall` comes twice; else nothing."""
        return max(self._offset(wall, 0) - self._offset(wall, 1), timedelta())

    def _end_of_gap(self, wall: datetime) -> datetime:
        """The instant at which the clock jumps over `wall`."""
        before, after = self._offset(wall, 0), self._offset(wall, 1)
        low, high = wall.replace(tzinfo=UTC) - after, wall.replace(tzinfo=UTC) - before
        while high - low > timedelta(seconds=1):
            middle = low + timedelta(seconds=(high - low).total_seconds() // 2)
            if middle.astimezone(self.zone).utcoffset() == before:
                low = middle
            else:
                high = middle
        return high


@dataclass(frozen=True, slots=True)
class Due:
    """The slots that a beat enqueues. `is_cut`: more slots were missed than "all" catches up with."""

    slots: list[datetime]
    is_cut: bool = False


def due(crontab: Crontab, after: datetime, until: datetime, catch_up: str) -> Due:
    """The slots in (after, until] to run at `until`, by the policy "latest", "all" or "none".

    If no slot was missed, every late slot runs. Otherwise "all" runs missed and late slots, "latest" the newest of them
    only, and "none" the newest late slot only.
    """
    late_from = max(after, until - LATE)
    late = list(crontab.between(late_from, until))
    missed, is_cut = crontab.newest(after, late_from, MOST_AT_ONCE if catch_up == "all" else 1)
    if not missed:
        return Due(late)
    if catch_up == "all":
        slots = [*missed, *late]
        return Due(slots[-MOST_AT_ONCE:], is_cut or len(slots) > MOST_AT_ONCE)
    newest = late if catch_up == "none" else [*missed, *late]
    return Due(newest[-1:])


def validate(expression: object) -> None:
    """Check a cron expression. Raises ValueError in a sentence that names the wrong field."""
    if not isinstance(expression, str):
        raise ValueError(f"A cron expression is text such as '*/5 * * * *', not {expression!r}.")
    if len(expression) > MAXIMUM_LENGTH:
        raise ValueError(f"A cron expression has at most {MAXIMUM_LENGTH} characters, and this one {len(expression)}.")
    fields = expression.split()
    if expression.startswith("@"):
        if expression.lower() not in ALIASES:
            raise ValueError(f"{expression!r} is no cron alias. There are: {', '.join(ALIASES)}.")
    elif len(fields) != len(_FIELDS):
        raise ValueError(
            f"{expression!r} has {len(fields)} fields, and a cron expression five: minute, hour, day of month, month, "
            f"day of week. (There is none for seconds or years.)"
        )
    else:
        _validate_fields(expression)


def fields_of(expression: str) -> list[list[int | str]]:
    """The values of each field, in order: numbers, `l` for the last day of a month, and `*` alone for all of them.

    Raises ValueError.
    """
    from croniter import croniter  # where an expression is read: most processes read none

    validate(expression)
    return [[*field] for field in croniter.expand(_plain(expression))[0][:5]]


def zone_named(name: object) -> ZoneInfo:
    """The time zone of that IANA name. Raises ValueError."""
    try:
        return ZoneInfo(str(name))
    except (KeyError, ValueError, OSError):  # unknown; not a name at all; a folder of zones such as "Europe"
        raise ValueError(f"There is no time zone {name!r}. Use an IANA name, as 'Europe/Berlin' or 'UTC'.") from None


@lru_cache(maxsize=1000)
def _validate_fields(expression: str) -> None:
    fields = expression.split()
    for index, (field, name) in enumerate(zip(fields, _FIELDS, strict=True)):
        if field[0] in "hHrR":  # croniter chooses a random value for these; no two beats would agree
            raise ValueError(f"The {name} of {expression!r} can't be {field!r}: a slot must not depend on chance.")
        if not _is_accepted(" ".join(field if index == place else "*" for place in range(len(_FIELDS)))):
            raise ValueError(
                f"The {name} of {expression!r} can't be {field!r}. Write numbers, names, `*`, `-`, `,` and `/`."
            )
    if not _is_accepted(expression):
        raise ValueError(f"{expression!r} is not a cron expression. Write five fields, such as '30 7 * * MON-FRI'.")
    if next(_walls(expression, _LEAP_YEAR.replace(tzinfo=None)), None) is None:
        raise ValueError(f"{expression!r} never comes: no such day exists. Choose one that does.")


def _is_accepted(expression: str) -> bool:
    from croniter import croniter

    try:
        croniter(_plain(expression), _LEAP_YEAR)
    except (ValueError, KeyError, TypeError, IndexError):  # older releases of croniter raise more kinds
        return False
    return True


@lru_cache(maxsize=1000)
def _plain(expression: str) -> str:
    """The expression with `5-5` written as `5`: from croniter 5 on such a range means every value there is."""
    fields = (",".join(map(_without_single_range, field.split(","))) for field in expression.split())
    return " ".join(fields)


def _without_single_range(item: str) -> str:
    found = _RANGE.fullmatch(item)
    return found[1] if found and _number(found[1]) == _number(found[2]) else item


def _number(value: str) -> object:
    return int(value) if value.isdecimal() else _NAMES.get(value.lower(), value.lower())


@lru_cache(maxsize=1000)
def _is_for_every_hour(expression: str) -> bool:
    from croniter import croniter

    hours = croniter.expand(_plain(expression))[0][1]
    return hours == ["*"] or set(hours) >= _EVERY_HOUR


def _walls(expression: str, start: datetime) -> Iterator[datetime]:
    """The wall clock's time at each slot of the expression, later than `start`.

    croniter never sees the time zone: it is given wall time as UTC, which has no gaps.
    """
    from croniter import CroniterBadDateError, croniter

    times = croniter(_plain(expression), start.replace(tzinfo=UTC), ret_type=datetime)
    while True:
        try:
            wall = times.get_next()
        except CroniterBadDateError:
            return
        yield wall.replace(tzinfo=None)
