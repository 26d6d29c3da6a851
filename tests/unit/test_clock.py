"""Time and chance are values: UUIDs of version 7 sort by their time, and jitter keeps to its spread."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import RFC_4122

from hypothesis import given
from hypothesis import strategies as st

from i3tasks.core.clock import SYSTEM_CLOCK, Clock

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
instants = st.integers(0, 200_000_000_000_000_000).map(lambda number: EPOCH + timedelta(microseconds=number))
chances = st.binary(min_size=10, max_size=10)


def clock(now: datetime, chance: bytes = bytes(10)) -> Clock:
    return replace(SYSTEM_CLOCK, now=lambda: now, random_bytes=lambda size: chance[:size])


@given(instants, chances)
def test_a_uuid_is_of_version_7_and_carries_its_millisecond(now: datetime, chance: bytes) -> None:
    made = clock(now, chance).new_uuid7()
    assert (made.version, made.variant) == (7, RFC_4122)
    written = EPOCH + timedelta(milliseconds=made.int >> 80)
    assert timedelta(0) <= now - written + timedelta(milliseconds=1) <= timedelta(milliseconds=2)


@given(instants, chances, chances)
def test_uuids_sort_by_time_whatever_the_chance(now: datetime, first: bytes, second: bytes) -> None:
    later = now + timedelta(milliseconds=2)
    assert clock(now, first).new_uuid7() < clock(later, second).new_uuid7()


@given(instants, chances, chances)
def test_every_random_bit_counts(now: datetime, first: bytes, second: bytes) -> None:
    """74 of the 80 bits are used: 12 after the version, 62 after the variant."""
    used = (1 << 80) - (1 << 68) | (1 << 62) - 1
    same = int.from_bytes(first, "big") & used == int.from_bytes(second, "big") & used
    assert (clock(now, first).new_uuid7() == clock(now, second).new_uuid7()) is same


def test_the_systems_uuids_differ_and_its_time_is_aware() -> None:
    assert len({SYSTEM_CLOCK.new_uuid7() for _ in range(1000)}) == 1000
    assert SYSTEM_CLOCK.now().tzinfo is UTC


@given(st.floats(0, 1), st.floats(0, 1, exclude_max=True))
def test_jitter_stays_within_its_spread(spread: float, chance: float) -> None:
    factor = replace(SYSTEM_CLOCK, random=lambda: chance).jitter(spread)
    assert 1 - spread <= factor <= 1 + spread
