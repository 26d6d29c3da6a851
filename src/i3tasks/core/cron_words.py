"""Says a cron expression in words, for people who look at a schedule: `every 15 minutes, Monday to Friday`."""

from __future__ import annotations

from collections.abc import Sequence

from .crontab import fields_of

_DAYS = ("Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday")
_MONTHS = (
    *("January", "February", "March", "April", "May", "June", "July"),
    *("August", "September", "October", "November", "December"),
)
MOST_TIMES = 6
"""More times of a day than these are not listed one by one."""

Field = Sequence[int | str]


def in_words(expression: str) -> str:
    """The expression in words; the expression itself, if it can't be read or has something that words don't fit."""
    try:
        minutes, hours, days, months, weekdays = fields_of(expression)
    except ValueError:
        return expression
    if not expression.startswith("@") and {"#", "l", "L"} & {
        *expression.split()[-1]
    }:  # the second Friday, the last one
        return expression
    time, is_of_day = _time(minutes, hours)
    day = _day(days, weekdays)
    if day == "" and is_of_day:
        day = "every day"
    return ", ".join(filter(None, [time, day, _months(months)]))


def _time(minutes: Field, hours: Field) -> tuple[str, bool]:
    """The words for the time of day, and whether they name single times."""
    every_hour = _is_all(hours, 24)
    if every_hour:
        return _within_the_hour(minutes), False
    numbers = [int(hour) for hour in hours]
    if _is_all(minutes, 60):
        return f"every minute from {_joined([f'{hour:02}:00 to {hour:02}:59' for hour in numbers])}", False
    if len(minutes) * len(numbers) <= MOST_TIMES:
        return f"at {_joined([f'{hour:02}:{int(minute):02}' for hour in numbers for minute in minutes])}", True
    step = _step(numbers, 24)
    if step and len(minutes) == 1:
        return f"every {step} hours, at minute {minutes[0]}", False
    return f"{_within_the_hour(minutes)}, in the hours {_ranges(numbers)}", False


def _within_the_hour(minutes: Field) -> str:
    if _is_all(minutes, 60):
        return "every minute"
    numbers = [int(minute) for minute in minutes]
    if numbers == [0]:
        return "every hour"
    if len(numbers) == 1:
        return f"at minute {numbers[0]} of every hour"
    step = _step(numbers, 60)
    return f"every {step} minutes" if step else f"at the minutes {_ranges(numbers)} of every hour"


def _step(numbers: Sequence[int], length: int) -> int:
    """The distance between the numbers, if they divide `length` evenly from 0 on; else 0."""
    step = length // len(numbers)
    return step if list(numbers) == list(range(0, length, step)) and length % step == 0 else 0


def _day(days: Field, weekdays: Field) -> str:
    of_week = "" if _is_all(weekdays, 7) else _ranges([int(day) for day in weekdays], _DAYS)
    of_month = ""
    if not _is_all(days, 31):
        numbers = [int(day) for day in days if day != "l"]
        named = [f"day {_ranges(numbers)}"] if numbers else []
        of_month = f"on {_joined([*named, *(['the last day'] if 'l' in days else [])])} of the month"
    if of_week and of_month:
        return f"{of_month} or on {of_week}"
    return of_month or of_week


def _months(months: Field) -> str:
    return "" if _is_all(months, 12) else f"in {_ranges([int(month) - 1 for month in months], _MONTHS)}"


def _is_all(field: Field, length: int) -> bool:
    return list(field) == ["*"] or len(field) >= length


def _ranges(numbers: Sequence[int], names: Sequence[str] | None = None) -> str:
    """`1, 3 and 7 to 9`, with the names of the numbers."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])

    def name(number: int) -> str:
        return str(number) if names is None else names[number]

    return _joined(
        [
            part
            for run in runs
            for part in ([f"{name(run[0])} to {name(run[-1])}"] if len(run) > 2 else [name(number) for number in run])
        ]
    )


def _joined(words: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))
