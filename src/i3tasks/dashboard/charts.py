"""Charts as SVG, drawn here: no script, no style of their own, so that the strictest CSP shows them.

Colours are classes of board.css. Each chart is an image with a sentence for those who don't see it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import ceil, floor, log10

from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

WIDTH, HEIGHT = 560, 170
LEFT, RIGHT, TOP, BOTTOM = 44, 6, 10, 22
SPARK_WIDTH, SPARK_HEIGHT = 120, 28


@dataclass(frozen=True, slots=True)
class _Area:
    """The part of an image in which the values are drawn."""

    left: float
    right: float
    top: float
    floor: float


_WHOLE = _Area(LEFT, WIDTH - RIGHT, TOP, HEIGHT - BOTTOM)
_SPARK = _Area(0, SPARK_WIDTH, 3, SPARK_HEIGHT)


@dataclass(frozen=True, slots=True)
class Mark:
    """A line across a chart. `place` is 0 at its beginning, and 1 at its end."""

    place: float
    title: str


def bars(
    stacks: Sequence[Sequence[float]],
    kinds: Sequence[str],
    *,
    said: str,
    ends: tuple[str, str],
    titles: Sequence[str],
    unit: str = "",
    marks: Sequence[Mark] = (),
) -> SafeString:
    """Stacked bars, one for each of `stacks`, whose parts have the classes `kinds`. `titles` say each in words."""
    top = nice_top(max((sum(stack) for stack in stacks), default=0))
    drawn = [
        (kinds[part], f"{x:.1f}", f"{y:.1f}", f"{max(width - 1.5, 0.8):.1f}", f"{height:.1f}", titles[number])
        for number, part, x, y, width, height in _stacked(stacks, _WHOLE, top)
    ]
    form = '<rect class="{}" x="{}" y="{}" width="{}" height="{}" rx="1"><title>{}</title></rect>'
    content = format_html("{}{}", format_html_join("", form, drawn), _lines_of(marks, _WHOLE))
    return _chart(content, top, _with_marks(said, marks), ends, unit)


def sparkline(values: Sequence[float | None], *, said: str) -> SafeString:
    """A small line without axes, for a table's cell."""
    top = max((value for value in values if value is not None), default=0) or 1
    step = SPARK_WIDTH / max(len(values) - 1, 1)
    places = [
        None if value is None else (number * step, SPARK_HEIGHT - 2 - (SPARK_HEIGHT - 5) * value / top)
        for number, value in enumerate(values)
    ]
    return _spark(_lines(places, SPARK_HEIGHT - 1), said)


def spark_bars(
    stacks: Sequence[Sequence[float]], kinds: Sequence[str], *, said: str, marks: Sequence[Mark] = ()
) -> SafeString:
    """The same as stacked bars, whose parts have the classes `kinds`."""
    top = max((sum(stack) for stack in stacks), default=0) or 1
    paths = [""] * len(kinds)
    for _, part, x, y, width, height in _stacked(stacks, _SPARK, top):
        paths[part] += f"M{x:.1f} {y:.1f}h{width * 0.8:.1f}v{height:.1f}h-{width * 0.8:.1f}z"
    bars_drawn = format_html_join("", '<path class="{}" d="{}"/>', zip(kinds, paths, strict=True))
    return _spark(format_html("{}{}", bars_drawn, _lines_of(marks, _SPARK)), _with_marks(said, marks))


def nice_top(largest: float) -> float:
    """The end of an axis: 1, 2 or 5 times a power of ten, and not less than `largest`."""
    if largest <= 0:
        return 1.0
    power = 10.0 ** floor(log10(largest))
    return next(step * power for step in (1, 2, 5, 10) if step * power >= largest * 0.9999)


def _chart(content: SafeString, top: float, said: str, ends: tuple[str, str], unit: str = "") -> SafeString:
    form = (
        '<svg class="chart" viewBox="0 0 {w} {h}" role="img" aria-label="{said}">'
        '<line class="axis" x1="{left}" x2="{right}" y1="{floor}" y2="{floor}"/>'
        '<line class="axis" x1="{left}" x2="{right}" y1="{top}" y2="{top}"/>'
        '<text x="{edge}" y="{top_text}" text-anchor="end">{largest}</text>'
        '<text x="{edge}" y="{floor}" text-anchor="end">0</text>{content}'
        '<text x="{left}" y="{foot}">{first}</text><text x="{right}" y="{foot}" text-anchor="end">{last}</text></svg>'
    )
    return format_html(
        form,
        w=WIDTH,
        h=HEIGHT,
        said=said,
        left=LEFT,
        right=WIDTH - RIGHT,
        top=TOP,
        top_text=TOP + 8,
        edge=LEFT - 6,
        floor=HEIGHT - BOTTOM,
        foot=HEIGHT - 6,
        largest=_short(top) + unit,
        content=content,
        first=ends[0],
        last=ends[1],
    )


def _spark(content: SafeString, said: str) -> SafeString:
    return format_html(
        '<svg class="chart spark" viewBox="0 0 {} {}" preserveAspectRatio="none" role="img" aria-label="{}">{}</svg>',
        SPARK_WIDTH,
        SPARK_HEIGHT,
        said,
        content,
    )


def _stacked(
    stacks: Sequence[Sequence[float]], area: _Area, top: float
) -> Iterator[tuple[int, int, float, float, float, float]]:
    """The parts that are not 0: number of the stack, number of the part, x, y, width and height."""
    width = (area.right - area.left) / max(len(stacks), 1)
    for number, stack in enumerate(stacks):
        y = area.floor
        for part, value in enumerate(stack):
            if value:
                height = (area.floor - area.top) * value / top
                y -= height
                yield number, part, area.left + number * width, y, width, height


def _lines_of(marks: Sequence[Mark], area: _Area) -> SafeString:
    """The marks, each with a wider line that can't be seen, on which a pointer finds its title."""
    form = '<g class="mark"><path d="{}"/><path class="around" d="{}"/><title>{}</title></g>'
    drawn = []
    for mark in marks:
        line = f"M{area.left + (area.right - area.left) * mark.place:.1f} {area.top}V{area.floor}"
        drawn.append((line, line, mark.title))
    return format_html_join("", form, drawn)


def _with_marks(said: str, marks: Sequence[Mark]) -> str:
    return " ".join([said, *(f"{mark.title}." for mark in marks)])


def _lines(places: Iterable[tuple[float, float] | None], floor_y: float) -> SafeString:
    """The runs of places between gaps, each with its area; a single place is a dot of a line."""
    runs: list[list[tuple[float, float]]] = [[]]
    for place in places:
        if place is None:
            runs.append([])
        else:
            runs[-1].append(place)
    drawn = []
    for run in filter(None, runs):
        ends = run if len(run) > 1 else [run[0], (run[0][0] + 2, run[0][1])]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in ends)
        area = f"{ends[0][0]:.1f},{floor_y} {path} {ends[-1][0]:.1f},{floor_y}"
        drawn.append((area, path))
    return format_html_join("", '<polygon class="area" points="{}"/><polyline class="line" points="{}"/>', drawn)


def _short(value: float) -> str:
    """`20`, `0.5`, `2k`, `1M`: the end of an axis."""
    for size, sign in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:g}{sign}"
    digits = 0 if value >= 1 else ceil(-log10(value))
    return f"{value:.{digits}f}"
