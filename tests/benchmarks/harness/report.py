"""Results as Markdown: of each contestant the median of the rounds, with the least and the largest."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from .measure import WORKLOADS

COLUMNS: dict[str, dict[str, str]] = {
    "drain": {
        "per_second": "tasks/s",
        "worker_cpu_us": "worker's CPU, µs a task",
        "peak_mb": "peak MB",
        "proportional_mb": "MB, shared pages divided",
        "start_seconds": "s to the first body",
    },
    "io": {"per_second": "tasks/s", "worker_cpu_us": "worker's CPU, µs a task", "peak_mb": "peak MB"},
    "latency": {
        "p50_ms": "p50 ms",
        "p95_ms": "p95 ms",
        "p99_ms": "p99 ms",
        "p50_from_call_ms": "p50 from the call, ms",
    },
    "load": {"p50_ms": "p50 ms", "p95_ms": "p95 ms", "p99_ms": "p99 ms", "other_tasks_per_second": "other tasks/s"},
    "enqueue": {"per_second": "tasks/s", "cpu_us": "CPU, µs a task"},
    "push": {
        "per_second": "tasks/s",
        "worker_cpu_us": "server's CPU, µs a task",
        "p50_ms": "p50 ms",
        "p95_ms": "p95 ms",
    },
    "start": {
        "start_seconds": "s to the first body",
        "start_cpu_seconds": "CPU s until then",
        "idle_mb": "MB",
        "idle_proportional_mb": "MB, shared pages divided",
        "processes": "processes",
    },
}
BRIEF = (
    "per_second",
    "worker_cpu_us",
    "p50_ms",
    "p95_ms",
    "p99_ms",
    "start_seconds",
    "idle_mb",
    "peak_mb",
    "error",
    "log",
)
Key = tuple[str, str, str]


def line(result: dict[str, Any]) -> str:
    """One result, for the terminal."""
    figures = {name: _number(result[name]) for name in BRIEF if result.get(name) is not None}
    figures |= {way: _number(figure["per_second"]) for way, figure in result.get("ways", {}).items()}
    if disagreement := disagreements(result):
        figures["DISAGREES"] = disagreement
    text = ", ".join(f"{name} {figure}" for name, figure in figures.items())
    return f"{result['round']}  {result['workload']:8} {result['contestant']:22} {result['kind']:10} {text}"


def disagreements(result: dict[str, Any]) -> str:
    """What the store and the bodies' own record say differently; "" if nothing."""
    if result.get("finished") is False:
        return f"{result['done_in_store']} done in the store, {result['bodies_run']} bodies, of {result['tasks']}"
    if result.get("repeated"):
        return f"{result['repeated']} bodies ran again"
    ways = result.get("ways", {})
    wrong = [way for way, figure in ways.items() if figure["found_in_store"] not in (None, figure["tasks"])]
    return f"not all found in the store: {', '.join(wrong)}" if wrong else ""


def grouped(results: Iterable[dict[str, Any]]) -> dict[Key, list[dict[str, Any]]]:
    """The results without errors by workload, contestant, and kind or, where there are any, way."""
    groups: defaultdict[Key, list[dict[str, Any]]] = defaultdict(list)
    for result in results:
        if "error" not in result:
            for kind, figures in result.get("ways", {result["kind"]: result}).items():
                groups[result["workload"], result["contestant"], kind].append(figures)
    return dict(groups)


def median(results: Sequence[dict[str, Any]], figure: str) -> float | None:
    values = [result[figure] for result in results if result.get(figure) is not None]
    return statistics.median(values) if values else None


def tables(results: Sequence[dict[str, Any]]) -> str:
    """A table for each workload, and what went wrong."""
    groups = grouped(results)
    parts = []
    for workload in WORKLOADS:
        chosen = {key: group for key, group in groups.items() if key[0] == workload}
        if chosen:
            parts.append(_table(workload, chosen))
    failed = [f"- failed: {line(result)}" for result in results if "error" in result]
    odd = [f"- {line(result)}" for result in results if "error" not in result and disagreements(result)]
    return "\n\n".join(filter(None, [*parts, "\n".join(failed + odd)]))


def _table(workload: str, groups: dict[Key, list[dict[str, Any]]]) -> str:
    columns = COLUMNS[workload]
    head = ["contestant", "way" if workload in ("enqueue", "push") else "body", *columns.values(), "rounds"]
    rows = [
        [contestant, kind, *(_cell(group, figure) for figure in columns), str(len(group))]
        for (_, contestant, kind), group in groups.items()
    ]
    lines = [head, ["---"] * len(head), *rows]
    return f"### {workload}\n\n" + "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _cell(results: Sequence[dict[str, Any]], figure: str) -> str:
    values = [result[figure] for result in results if result.get(figure) is not None]
    if not values:
        return "-"
    middle = _number(statistics.median(values))
    return middle if len(values) == 1 else f"{middle} ({_number(min(values))} to {_number(max(values))})"


def _number(value: Any) -> str:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return str(value)
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"
