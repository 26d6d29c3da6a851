"""Times, spans of time and numbers as people read them."""

from __future__ import annotations

from datetime import datetime, timedelta

from django.utils import timezone

UNITS = ((86400, "d"), (3600, "h"), (60, "min"))


def span(value: timedelta | float | None) -> str:
    """`340 ms`, `4.2 s`, `3 min 20 s`, `2 h 5 min`, `3 d 4 h`; "" for None."""
    if value is None:
        return ""
    seconds = max(value.total_seconds() if isinstance(value, timedelta) else float(value), 0.0)
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 59.95:
        return f"{seconds:.1f} s".replace(".0 ", " ")
    whole = round(seconds)
    for size, unit in UNITS:
        if whole >= size:
            count, rest = divmod(whole, size)
            smaller, name = next(((s, u) for s, u in (*UNITS, (1, "s")) if s < size), (1, "s"))
            return f"{count} {unit}" + (f" {rest // smaller} {name}" if rest // smaller and count < 100 else "")
    return f"{whole} s"


def relative(value: datetime | None, now: datetime) -> str:
    """`4 s ago`, `in 3 min`, `now`; "" for None."""
    if value is None:
        return ""
    seconds = (now - value).total_seconds()
    if abs(seconds) < 1:
        return "now"
    whole = round(abs(seconds))
    text = span(whole if whole < 60 else whole - whole % 60)  # an age is read at a glance
    return f"{text} ago" if seconds > 0 else f"in {text}"


def instant(value: datetime | None) -> str:
    """`2026-05-03 10:22:08.123 CEST` in the current time zone; one that has no time there, in UTC."""
    if value is None:
        return ""
    try:
        local = timezone.localtime(value)
    except (OverflowError, ValueError):
        return f"{value:%Y-%m-%d %H:%M:%S} UTC"
    return f"{local:%Y-%m-%d %H:%M:%S}.{local.microsecond // 1000:03d} {local:%Z}"


def number(value: int | None) -> str:
    """`1,234,567`"""
    return "" if value is None else f"{value:,}"


def rate(per_second: float) -> str:
    """`12.5 per second`; where it is slow, `3.2 per minute`, `2.5 per hour` or `4.0 per day`."""
    for seconds, unit in ((1, "second"), (60, "minute"), (3600, "hour")):
        if per_second * seconds >= 1:
            return f"{per_second * seconds:,.1f} per {unit}"
    return f"{per_second * 86_400:.1f} per day" if per_second else "0 per minute"
