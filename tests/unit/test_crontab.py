"""Cron slots against stepping through every minute, over changes of clocks."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from i3tasks.core.crontab import LATE, MOST_AT_ONCE, Crontab, due, validate, zone_named
from tests.support.exploring import examples

MINUTE = timedelta(minutes=1)
CHANGES = {
    "Europe/Berlin": ["2026-03-29", "2026-10-25"],
    "America/New_York": ["2026-03-08", "2026-11-01"],
    "Australia/Lord_Howe": ["2026-04-05", "2026-10-04"],  # by half an hour
    "America/Sao_Paulo": ["2018-02-18", "2018-11-04"],  # at midnight
    "Africa/Casablanca": ["2026-02-15", "2026-03-22"],  # for Ramadan
    "Pacific/Apia": ["2011-12-30"],  # a whole day that never was
    "UTC": ["2026-06-01"],
}

Matcher = Callable[[datetime], bool]


def field(low: int, high: int) -> st.SearchStrategy[tuple[str, frozenset[int]]]:
    """A field's text, and the values that it stands for."""
    every = frozenset(range(low, high + 1))
    number = st.integers(low, high)
    some = st.frozensets(number, min_size=1, max_size=4).map(lambda values: (",".join(map(str, values)), values))
    steps = st.integers(2, 30).map(lambda step: (f"*/{step}", frozenset(range(low, high + 1, step))))
    ranges = st.tuples(number, number).map(
        lambda pair: (f"{min(pair)}-{max(pair)}", frozenset(range(min(pair), max(pair) + 1)))
    )
    return st.one_of(st.just(("*", every)), some, steps, ranges)


@st.composite
def expressions(draw: st.DrawFn) -> tuple[str, Matcher, bool]:
    """An expression, what says whether a wall clock's time fits it, and whether it is for every hour."""
    minutes, hours = draw(field(0, 59)), draw(field(0, 23))
    day = draw(st.sampled_from(["*", "*", "day", "weekday", "both"]))
    days = draw(field(1, 31)) if day in ("day", "both") else ("*", frozenset(range(1, 32)))
    weekdays = draw(field(0, 7)) if day in ("weekday", "both") else ("*", frozenset(range(7)))
    allowed_weekdays = {value % 7 for value in weekdays[1]}
    # Whether a range of all days counts as given or as `*` differs between croniter's releases.
    assume(days[0] == "*" or len(days[1]) < 31)
    assume(weekdays[0] == "*" or len(allowed_weekdays) < 7)
    either = len(days[1]) < 31 and len(allowed_weekdays) < 7

    def fits(wall: datetime) -> bool:
        fits_day, fits_weekday = wall.day in days[1], wall.isoweekday() % 7 in allowed_weekdays
        fits_date = fits_day or fits_weekday if either else fits_day and fits_weekday
        return wall.minute in minutes[1] and wall.hour in hours[1] and fits_date

    return f"{minutes[0]} {hours[0]} {days[0]} * {weekdays[0]}", fits, len(hours[1]) == 24


def stepped(fits: Matcher, every_hour: bool, zone: ZoneInfo, after: datetime, until: datetime) -> list[datetime]:
    """The same slots, found by looking at the clock each minute."""
    slots: list[datetime] = []
    instant = after.replace(second=0, microsecond=0)
    wall = instant.astimezone(zone).replace(tzinfo=None)
    latest = wall  # that the clock has shown, also before `after`
    if instant.astimezone(zone).fold:
        latest = max((instant - minutes * MINUTE).astimezone(zone).replace(tzinfo=None) for minutes in range(25 * 60))
    while instant < until:
        instant += MINUTE
        wall = instant.astimezone(zone).replace(tzinfo=None)
        if every_hour:
            is_slot = fits(wall)
        else:  # every time that the clock has passed or jumped over since it was at its latest
            passed = int((wall - latest) / MINUTE)
            is_slot = any(fits(latest + step * MINUTE) for step in range(1, passed + 1))
        latest = max(latest, wall)
        if is_slot and after < instant <= until:
            slots.append(instant)
    return slots


@pytest.mark.parametrize("zone_name", CHANGES)
@settings(max_examples=examples(40))
@given(expression=expressions(), data=st.data())
def test_slots_are_those_of_minute_by_minute(
    zone_name: str, expression: tuple[str, Matcher, bool], data: st.DataObject
) -> None:
    text, fits, every_hour = expression
    zone = zone_named(zone_name)
    noon_before = datetime.fromisoformat(data.draw(st.sampled_from(CHANGES[zone_name]))).replace(tzinfo=UTC)
    after = noon_before + timedelta(seconds=data.draw(st.integers(-26 * 3600, 20 * 3600)))
    until = after + timedelta(seconds=data.draw(st.integers(0, 40 * 3600)))
    validate(text)

    slots = list(Crontab(text, zone).between(after, until))

    assert slots == stepped(fits, every_hour, zone, after, until)


@settings(max_examples=examples(50), deadline=None)
@given(expression=expressions(), hours=st.integers(0, 60), limit=st.integers(1, 30))
def test_newest_are_the_last_of_all(expression: tuple[str, Matcher, bool], hours: int, limit: int) -> None:
    crontab = Crontab(expression[0], zone_named("Europe/Berlin"))
    until = datetime(2026, 3, 29, 13, 0, 30, tzinfo=UTC)
    everything = list(crontab.between(until - timedelta(hours=hours), until))

    newest, has_more = crontab.newest(until - timedelta(hours=hours), until, limit)

    assert newest == everything[-limit:]
    assert has_more == (len(everything) > limit)


def local(expression: str, zone: str, day: str, count: int = 3) -> list[str]:
    """The first slots from the start of that day, on the zone's wall clock."""
    crontab = Crontab(expression, zone_named(zone))
    slots = crontab.between(datetime.fromisoformat(day).replace(tzinfo=crontab.zone) - MINUTE)
    return [next(slots).astimezone(crontab.zone).strftime("%d %H:%M%z") for _ in range(count)]


def test_a_time_that_does_not_exist_moves_to_the_next_that_does() -> None:
    assert local("30 2 * * *", "Europe/Berlin", "2026-03-28") == ["28 02:30+0100", "29 03:00+0200", "30 02:30+0200"]
    assert local("0 0 * * *", "America/Sao_Paulo", "2018-11-03") == ["03 00:00-0300", "04 01:00-0200", "05 00:00-0200"]
    assert local("10 2 * * *", "Australia/Lord_Howe", "2026-10-04", 1) == ["04 02:30+1100"]


def test_times_that_do_not_exist_are_one_slot() -> None:
    assert local("*/10 2,3 * * *", "Europe/Berlin", "2026-03-29", 2) == ["29 03:00+0200", "29 03:10+0200"]


def test_a_time_that_comes_twice_counts_once() -> None:
    assert local("30 2 * * *", "Europe/Berlin", "2026-10-25", 2) == ["25 02:30+0200", "26 02:30+0100"]


def test_every_hour_goes_on_in_the_hour_that_comes_twice() -> None:
    assert local("30 * * * *", "Europe/Berlin", "2026-10-25", 5)[1:] == [
        "25 01:30+0200",
        "25 02:30+0200",
        "25 02:30+0100",
        "25 03:30+0100",
    ]


@pytest.mark.parametrize(
    ("alias", "same"),
    [
        ("@hourly", "0 * * * *"),
        ("@daily", "0 0 * * *"),
        ("@midnight", "0 0 * * *"),
        ("@weekly", "0 0 * * 0"),
        ("@monthly", "0 0 1 * *"),
        ("@yearly", "0 0 1 1 *"),
        ("@annually", "0 0 1 1 *"),
        ("0 0 * * 7", "0 0 * * SUN"),
        ("0 0 1 JAN-mar *", "0 0 1 1,2,3 *"),
        ("5-5 3-3/2 * * *", "5 3 * * *"),
        ("0 0 * * mon-Mon,3-wed", "0 0 * * 1,3"),
    ],
)
def test_other_ways_of_writing_it(alias: str, same: str) -> None:
    validate(alias)
    assert local(alias, "UTC", "2026-02-03", 4) == local(same, "UTC", "2026-02-03", 4)


def test_either_day_field_is_enough() -> None:
    assert [slot[:2] for slot in local("0 0 13 * FRI", "UTC", "2026-03-09", 3)] == ["13", "20", "27"]
    assert [slot[:2] for slot in local("0 0 10 * FRI", "UTC", "2026-03-09", 3)] == ["10", "13", "20"]


@pytest.mark.parametrize(
    ("expression", "said"),
    [
        ("60 * * * *", "minute .* can't be '60'"),
        ("0 24 * * *", "hour .* can't be '24'"),
        ("0 0 32 * *", "day of month .* can't be '32'"),
        ("0 0 * foo *", r"month \(1 to 12.* can't be 'foo'"),
        ("0 0 * * 8", "day of week .* can't be '8'"),
        ("*/0 * * * *", "can't be '\\*/0'"),
        ("* * * *", "has 4 fields"),
        ("* * * * * *", "none for seconds"),
        ("", "has 0 fields"),
        ("@reboot", "no cron alias"),
        ("0 0 30 2 *", "never comes"),
        ("H * * * *", "depend on chance"),
        ("R(0-5) * * * *", "depend on chance"),
        (None, "is text"),
        ("*" * 300, "at most 200"),
    ],
)
def test_what_is_wrong_is_said(expression: object, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        validate(expression)


@pytest.mark.parametrize("name", ["Mars/Phobos", "Europe", "../UTC", "", None, "UTC\x00"])
def test_an_unknown_zone_is_named(name: object) -> None:
    with pytest.raises(ValueError, match="There is no time zone"):
        zone_named(name)


# ------------------------------------------------------------------------------------------------ what is due


NOON = datetime(2026, 6, 1, 12, 0, tzinfo=UTC)
MINUTELY = Crontab("* * * * *", UTC)
HOURLY = Crontab("0 * * * *", UTC)


@pytest.mark.parametrize("catch_up", ["latest", "all", "none"])
def test_a_late_beat_runs_the_slot_it_missed(catch_up: str) -> None:
    slots = due(MINUTELY, NOON, NOON + timedelta(seconds=130), catch_up).slots

    assert slots == [NOON + MINUTE, NOON + 2 * MINUTE]


@pytest.mark.parametrize(
    ("catch_up", "hours"), [("latest", [0]), ("all", [-2, -1, 0]), ("none", [0])], ids=["latest", "all", "none"]
)
def test_after_a_downtime_that_ends_on_time(catch_up: str, hours: list[int]) -> None:
    slots = due(HOURLY, NOON - timedelta(hours=3), NOON + timedelta(seconds=30), catch_up).slots

    assert slots == [NOON + timedelta(hours=hour) for hour in hours]


@pytest.mark.parametrize(("catch_up", "hours"), [("latest", [0]), ("all", [-2, -1, 0]), ("none", [])])
def test_after_a_downtime_that_ends_between_slots(catch_up: str, hours: list[int]) -> None:
    slots = due(HOURLY, NOON - timedelta(hours=3), NOON + timedelta(minutes=30), catch_up).slots

    assert slots == [NOON + timedelta(hours=hour) for hour in hours]


def test_all_is_bounded_and_says_so() -> None:
    cut = due(MINUTELY, NOON - timedelta(days=30), NOON, "all")
    whole = due(MINUTELY, NOON - MOST_AT_ONCE * MINUTE, NOON, "all")

    assert (len(cut.slots), cut.slots[-1], cut.is_cut) == (MOST_AT_ONCE, NOON, True)
    assert (len(whole.slots), whole.is_cut) == (MOST_AT_ONCE, False)


@pytest.mark.parametrize("catch_up", ["latest", "all", "none"])
def test_nothing_is_due_before_its_time(catch_up: str) -> None:
    assert due(HOURLY, NOON, NOON + timedelta(minutes=59), catch_up).slots == []
    assert due(HOURLY, NOON, NOON - LATE, catch_up).slots == []
