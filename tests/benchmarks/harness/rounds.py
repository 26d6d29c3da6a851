"""Takes the measures of a run: in rounds, in which the contestants take turns at each workload."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .agent import ANSWER
from .contestant import ROOT, contestant_class
from .environments import NotInstalled, python_for, versions
from .measure import WORKLOADS, Measure, Services
from .services import RunningServices, free_port

Result = dict[str, Any]
PATIENCE_SECONDS = 120
"""Beside the limit of the tasks, what a measure may take: filling, starting, the other ways to enqueue."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A contestant that takes part, and the interpreter that has it."""

    name: str
    python: str

    @property
    def blank(self) -> Measure:
        """A measure of it, to be filled in."""
        base, _, variant = self.name.partition(":")
        return Measure(base, variant, "", "", "", "", "", 0)


def entries(names: Sequence[str], environments: Path, say: Callable[[str], None]) -> Iterator[Entry]:
    """The contestants that can be installed here."""
    for name in names:
        base = name.partition(":")[0]
        try:
            yield Entry(name, python_for(base, contestant_class(base).requires, environments))
        except NotInstalled as error:
            say(f"{name} is left out: {error}")


def kinds_of(bodies: Sequence[str], workload: str) -> list[str]:
    """The kinds of bodies that a workload measures: for `drain` each, else coroutines where there are any."""
    if workload == "drain":
        return [f"noop_{body}" for body in bodies]
    return [f"{'io' if workload == 'io' else 'noop'}_{'async' if 'async' in bodies else 'sync'}"]


def plan(entered: Sequence[Entry], workloads: Sequence[str], rounds: int) -> Iterator[tuple[int, Entry, str, str]]:
    """Round, contestant, workload and kind of each measure, in their order."""
    for number in range(1, rounds + 1):
        for workload in (known for known in WORKLOADS if known in workloads):
            for entry in entered:
                contestant = contestant_class(entry.blank.contestant)(entry.blank)
                for kind in kinds_of(contestant.bodies, workload):
                    yield number, entry, workload, kind


def run(
    entered: Sequence[Entry],
    workloads: Sequence[str],
    rounds: int,
    folder: Path,
    limit: float,
    scale: float,
    rate: float = 0,
) -> Iterator[Result]:
    """The results, one by one. In `load`, `rate` other tasks come a second; 0: half as many as `drain` ran."""
    folder.mkdir(parents=True, exist_ok=True)
    blanks = [entry.blank for entry in entered]
    needed = {name for blank in blanks for name in contestant_class(blank.contestant)(blank).needs}
    about = {entry.name: versions(entry.python) for entry in entered}
    drained: dict[str, float] = {}
    with RunningServices(needed, folder) as services:
        for number, entry, workload, kind in plan(entered, workloads, rounds):
            measure = replace(
                _measure(entry, workload, kind, folder, services),
                limit=limit,
                scale=scale,
                rate=rate or drained.get(entry.name, 0) / 2,
            )
            if workload == "load" and not measure.rate:
                continue  # `drain` must be measured in the same run, or the rate be given
            figures = _take(measure, entry.python)
            if workload == "drain" and figures.get("per_second"):
                drained[entry.name] = max(figures["per_second"], drained.get(entry.name, 0) if number == 1 else 0)
            yield {
                "contestant": entry.name,
                "workload": workload,
                "kind": kind,
                "round": number,
                "described": contestant_class(measure.contestant)(measure).described(),
                "versions": about[entry.name],
                "load": os.getloadavg()[0],
                "at": time.strftime("%FT%TZ", time.gmtime()),
                **figures,
            }


def _measure(entry: Entry, workload: str, kind: str, folder: Path, services: Services) -> Measure:
    stamp = f"{entry.name.replace(':', '-')}-{workload}-{kind}-{time.time_ns()}"
    return replace(
        entry.blank,
        workload=workload,
        kind=kind,
        record=str(folder / f"{stamp}.record"),
        log=str(folder / f"{stamp}.log"),
        run_id=f"r{time.time_ns() // 1_000_000}",
        http_port=free_port(),
        services=services,
    )


def _take(measure: Measure, python: str) -> Result:
    command = [python, "-m", "tests.benchmarks.harness.agent"]
    with open(measure.log, "ab") as log:
        try:
            done = subprocess.run(
                command,
                cwd=ROOT,
                env=measure.environment(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                timeout=measure.limit * 2 + PATIENCE_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            return {"error": f"It took more than {error.timeout:g} seconds.", "log": measure.log}
    for line in done.stdout.decode().splitlines():
        if line.startswith(ANSWER):
            figures: Result = json.loads(line.removeprefix(ANSWER))
            if "error" in figures:
                figures["log"] = measure.log
            else:
                Path(measure.record).unlink(missing_ok=True)
            return figures
    return {"error": f"It ended with code {done.returncode} and no figures.", "log": measure.log}
