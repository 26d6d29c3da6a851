"""Charts of a run, as SVG files: python -m tests.benchmarks.charts benchmark.json docs/performance

A bar is the median of the rounds, the thin line on it goes from the least to the largest.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from .harness.report import grouped

WIDTH, LEFT, RIGHT, ROW, TOP = 760, 250, 90, 26, 44
OURS, OTHERS, BOUNDS = "#2f6f4f", "#8a94a6", "#c9ced8"
INK = "#5b6472"  # readable on a light and on a dark page


@dataclass(frozen=True, slots=True)
class Chart:
    """What a chart shows."""

    name: str
    title: str
    workload: str
    figure: str
    ways: tuple[str, ...] = ()
    """Of `enqueue`, the ways that are shown; else none."""


CHARTS = (
    Chart("drain", "No-op tasks a second, results stored (drain)", "drain", "per_second"),
    Chart("io", "Tasks that sleep 0.1 s, a second (io)", "io", "per_second"),
    Chart("latency", "Enqueued to begun, idle worker: median of p50, in ms (latency)", "latency", "p50_ms"),
    Chart("latency-p95", "Enqueued to begun, idle worker: median of p95, in ms (latency)", "latency", "p95_ms"),
    Chart(
        "enqueue",
        "Tasks enqueued a second, one call after the other (enqueue)",
        "enqueue",
        "per_second",
        ("one by one",),
    ),
    Chart(
        "enqueue-bulk",
        "Tasks enqueued a second, many in a call (enqueue)",
        "enqueue",
        "per_second",
        (
            "delay_many",
            "a group",
            "adelay, 1,000 at once",
            "batch_defer",
            "enqueue_all",
            "kiq, 50 at once",
            "in batches",
        ),
    ),
    Chart("memory", "Memory of an idle worker, in MB (start)", "start", "idle_mb"),
)


@dataclass(frozen=True, slots=True)
class Bar:
    label: str
    values: tuple[float, ...]

    @property
    def middle(self) -> float:
        ordered = sorted(self.values)
        half = len(ordered) // 2
        return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2

    @property
    def color(self) -> str:
        if self.label.startswith("i3tasks"):
            return OURS
        return BOUNDS if self.label.startswith(("raw", "ceiling")) else OTHERS


def bars(chart: Chart, results: Sequence[dict[str, Any]]) -> list[Bar]:
    """The bars of a chart, the largest first."""
    found = []
    for (workload, contestant, kind), group in grouped(results).items():
        if workload == chart.workload and (not chart.ways or kind in chart.ways):
            values = tuple(result[chart.figure] for result in group if result.get(chart.figure) is not None)
            if values:
                found.append(Bar(f"{contestant}, {kind.replace('noop_', '').replace('io_', '')}", values))
    return sorted(found, key=lambda bar: bar.middle, reverse=True)


def draw(title: str, bars: Sequence[Bar]) -> str:
    """The chart as SVG."""
    height = TOP + ROW * len(bars) + 8
    scale = (WIDTH - LEFT - RIGHT) / max(max(bar.values) for bar in bars)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        f'role="img" font-family="system-ui, sans-serif" font-size="13" fill="{INK}">',
        f"<title>{escape(title)}</title>",
        f'<text x="0" y="20" font-size="15" font-weight="600">{escape(title)}</text>',
    ]
    for row, bar in enumerate(bars):
        y = TOP + row * ROW
        low, high, end = (LEFT + value * scale for value in (min(bar.values), max(bar.values), bar.middle))
        parts += [
            f'<text x="{LEFT - 10}" y="{y + 14}" text-anchor="end">{escape(bar.label)}</text>',
            f'<rect x="{LEFT}" y="{y + 2}" width="{max(end - LEFT, 1):.1f}" height="16" rx="2" fill="{bar.color}"/>',
            f'<line x1="{low:.1f}" x2="{high:.1f}" y1="{y + 10}" y2="{y + 10}" stroke="{INK}" stroke-width="1.5"/>',
            f'<text x="{max(end, high) + 8:.1f}" y="{y + 14}">{_number(bar.middle)}</text>',
        ]
    return "\n".join([*parts, "</svg>", ""])


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 20 else f"{value:.1f}"


def main() -> None:
    source, folder = Path(sys.argv[1]), Path(sys.argv[2])
    results = json.loads(source.read_text())
    folder.mkdir(parents=True, exist_ok=True)
    for chart in CHARTS:
        if found := bars(chart, results):
            (folder / f"{chart.name}.svg").write_text(draw(chart.title, found))


if __name__ == "__main__":
    main()
