"""Measures contestants side by side on this machine, in one run:

    python -m tests.benchmarks --contestants i3tasks,i3tasks:embedded,procrastinate --workloads drain,io,latency

Each measure runs in processes of its own, in the contestant's own environment; contestants take turns. Results are
written to a JSON file as they come, and shown as tables of medians at the end. docs/performance.md defines the figures.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

from .harness import report
from .harness.measure import WORKLOADS
from .harness.rounds import Result, entries, run

OURS = (
    "i3tasks",
    "i3tasks:embedded",
    "i3tasks:threads",
    "i3tasks:push",
    "i3tasks:push_embedded",
    "i3tasks:database",
)
BOUNDS = ("raw", "raw:aio", "raw:push", "raw:push_embedded", "ceiling")
PEERS = (
    "procrastinate",
    "dramatiq",
    "taskiq",
    "celery",
    "django_tasks_db",
    "django_tasks_db:fast",
    "django_i3tasks",
    "django_i3tasks:push",
    "django_i3tasks:push_embedded",
    "threadmill",
    "dj_queue",
)
PUSHED = (
    "i3tasks:push_embedded",
    "i3tasks:push_view_embedded",
    "raw:push_embedded",
    "raw:push_asgi_embedded",
    "django_i3tasks:push_embedded",
)
SETS = {"ours": OURS, "bounds": BOUNDS, "peers": PEERS, "pushed": PUSHED, "all": (*OURS, *BOUNDS, *PEERS)}


def main() -> int:
    options = _options()
    names = [name for given in options.contestants.split(",") for name in SETS.get(given, (given,))]
    workloads = options.workloads.split(",")
    if unknown := set(workloads) - set(WORKLOADS):
        sys.exit(f"There is no workload {', '.join(unknown)}. There are: {', '.join(WORKLOADS)}.")
    entered = list(entries(names, options.environments, say))
    results: list[Result] = json.loads(options.out.read_text()) if options.out.exists() else []
    folder = options.work or Path(tempfile.mkdtemp(prefix="i3tasks-benchmark-"))
    say(f"Logs and data: {folder}")
    for result in run(entered, workloads, options.rounds, folder, options.limit, options.scale, options.rate):
        results.append(result)
        options.out.write_text(json.dumps(results, indent=1))
        say(report.line(result))
    say(report.tables(results))
    return 0


def say(text: str) -> None:
    print(text, flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    sets = ", ".join(f"{name} ({', '.join(names)})" for name, names in SETS.items() if name != "all")
    parser.add_argument(
        "--contestants",
        default="ours",
        help=f"names with commas between, each name or name:variant; or a set: {sets}, all",
    )
    parser.add_argument("--workloads", default=",".join(WORKLOADS), help="with commas between (all)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("benchmark.json"), help="results are added to what is there")
    parser.add_argument("--limit", type=float, default=60, help="seconds that the tasks of one measure may take")
    parser.add_argument("--scale", type=float, default=1, help="multiplies the number of tasks")
    parser.add_argument(
        "--rate", type=float, default=0, help="other tasks a second in load (half of what drain reached in this run)"
    )
    parser.add_argument("--work", type=Path, help="an empty folder for data and logs (a new temporary one)")
    parser.add_argument(
        "--environments", type=Path, default=Path("build/benchmark"), help="the folder of the peers' environments"
    )
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
