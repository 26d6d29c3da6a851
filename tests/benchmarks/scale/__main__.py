"""Measures how i3tasks grows, on PostgreSQL and the embedded emulator:

    python -m tests.benchmarks.scale finished=1000000 deferred=100000 members=10000 through=200000

Each check gets the number beside it; docs/performance.md says what each does. The figures are printed as JSON.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from ..harness.contestant import ROOT
from ..harness.measure import Measure, Services
from ..harness.services import RunningServices, free_port

DEFAULTS = {
    "finished": 1_000_000,
    "deferred": 100_000,
    "members": 10_000,
    "groups": 8_000,
    "burst": 100_000,
    "through": 200_000,
}
VARIANT = "embedded_admin"
DRAIN_SECONDS = 300.0


def main() -> int:
    asked = dict(argument.partition("=")[::2] for argument in sys.argv[1:]) or dict.fromkeys(DEFAULTS, "")
    if unknown := set(asked) - set(DEFAULTS):
        sys.exit(f"There is no check {', '.join(unknown)}. There are: {', '.join(DEFAULTS)}.")
    folder = Path(tempfile.mkdtemp(prefix="i3tasks-scale-"))
    with RunningServices({"postgres", "embedded"}, folder) as services:
        codes = [_check(name, int(count or DEFAULTS[name]), folder, services) for name, count in asked.items()]
    return max(codes)


def _check(name: str, count: int, folder: Path, services: Services) -> int:
    """Run one check in a process of its own, as Django's settings name what the measure has to itself."""
    measure = Measure(
        contestant="i3tasks",
        variant=VARIANT,
        workload="drain",
        kind="noop_async",
        record=str(folder / f"{name}.record"),
        log=str(folder / f"{name}.log"),
        run_id=f"scale-{name}",
        http_port=free_port(),
        services=services,
        limit=DRAIN_SECONDS,
    )
    command = [sys.executable, "-m", "tests.benchmarks.scale.checks", name, str(count)]
    return subprocess.run(command, cwd=ROOT, env=measure.environment(), check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
