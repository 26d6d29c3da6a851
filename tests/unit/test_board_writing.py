"""Times, spans and charts of the board, as people read them."""

from datetime import UTC, datetime, timedelta

import pytest

from i3tasks.dashboard.charts import bars, nice_top, sparkline
from i3tasks.dashboard.writing import instant, number, rate, relative, span

NOON = datetime(2026, 5, 3, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, ""), (0, "0 ms"), (-1, "0 ms"), (0.0123, "12 ms"), (1, "1 s"), (4.25, "4.2 s"), (59.94, "59.9 s"),
        (59.96, "1 min"), (200, "3 min 20 s"), (3600, "1 h"), (7500, "2 h 5 min"), (273_600, "3 d 4 h"),
        (timedelta(days=400, hours=5), "400 d"),
    ],
)  # fmt: skip
def test_spans(seconds: float | timedelta | None, text: str) -> None:
    assert span(seconds) == text


@pytest.mark.parametrize(
    ("per_second", "text"),
    [
        (1234.5, "1,234.5 per second"),
        (0.5, "30.0 per minute"),
        (1 / 600, "6.0 per hour"),
        (2 / 86_400, "2.0 per day"),
        (0, "0 per minute"),
    ],
)
def test_rates_are_told_in_a_time_in_which_something_happens(per_second: float, text: str) -> None:
    assert rate(per_second) == text


@pytest.mark.parametrize(
    ("before", "text"),
    [
        (0.4, "now"),
        (4, "4 s ago"),
        (59.7, "1 min ago"),
        (898, "14 min ago"),
        (-898, "in 14 min"),
        (90_000, "1 d 1 h ago"),
    ],
)
def test_distances_from_now(before: float, text: str) -> None:
    assert relative(NOON - timedelta(seconds=before), NOON) == text


def test_an_instant_that_has_no_time_in_the_zone_is_in_utc(settings: object) -> None:
    settings.TIME_ZONE = "America/New_York"  # type: ignore[attr-defined]

    assert instant(NOON) == "2026-05-03 08:00:00.000 EDT"
    assert instant(datetime(1, 1, 1, tzinfo=UTC)).endswith(" UTC")
    assert (instant(None), number(None), number(1234567)) == ("", "", "1,234,567")


@pytest.mark.parametrize(("largest", "top"), [(0, 1), (0.03, 0.05), (1, 1), (1.1, 2), (34, 50), (50, 50), (51, 100)])
def test_an_axis_ends_at_a_round_number(largest: float, top: float) -> None:
    assert nice_top(largest) == pytest.approx(top)


def test_bars_stand_on_each_other_in_proportion() -> None:
    drawn = bars([(3, 1), (0, 0)], ("good", "poor"), said="4 <b>", ends=("1 h", "now"), titles=("a", "b"))

    assert drawn.count("<rect") == 2, "what is zero is not drawn"
    heights = [float(part.split('"')[0]) for part in drawn.split('height="')[1:]]
    assert heights[0] == pytest.approx(3 * heights[1], rel=0.01)
    assert 'aria-label="4 &lt;b&gt;"' in drawn
    assert ">5</text>" in drawn


def test_a_line_has_a_gap_where_nothing_is_known() -> None:
    assert sparkline([1, 2, None, 3], said="x").count("<polyline") == 2
    assert sparkline([], said="x").count("<polyline") == 0
