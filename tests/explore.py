"""Looks for examples that break what the tests promise: `python -m tests.explore`, with the extra `test` installed.

Step by step, until the time is over, it runs property tests and the simulation, in random order and each time with
another random seed. At the first failure it stops and prints the command that repeats it. What it finds becomes an
example of its own in the tests.

    I3TASKS_EXPLORE_SECONDS=120   then the step that is under way is interrupted
    I3TASKS_EXAMPLES=1            how many times as many examples a step looks at as a plain run does
    I3TASKS_EXPLORE_SEED=...      decides all steps and their seeds; a random one by default
"""

from __future__ import annotations

import os
import random
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SECONDS = float(os.environ.get("I3TASKS_EXPLORE_SECONDS", "120"))
EXAMPLES = int(os.environ.get("I3TASKS_EXAMPLES") or 1)
SEED = int(os.environ.get("I3TASKS_EXPLORE_SEED") or random.SystemRandom().randrange(1, 2**31))
SCHEDULES = 300
"""How many schedules a step of the simulation looks at, for each of EXAMPLES."""
LONGEST_END = 30.0
"""Seconds in which an interrupted step has to end."""
WORKFLOWS = "tests/engine/test_workflow_properties.py"
PROPERTIES = [
    ["tests/unit", "tests/broker/emulator", "tests/engine", f"--ignore={WORKFLOWS}"],
    [WORKFLOWS],
    ["--db", "postgres", WORKFLOWS],
]
SIMULATION = "tests/engine/test_simulation.py::test_whatever_goes_wrong_everything_adds_up"

Step = tuple[dict[str, str], list[str]]


def main() -> int:
    """Explore until the time is over. Returns the exit code of the first step that fails, else 0."""
    end = time.monotonic() + SECONDS
    print(f"Exploring for {SECONDS:g} seconds: I3TASKS_EXPLORE_SEED={SEED}", flush=True)
    for variables, arguments in _steps():
        left = end - time.monotonic()
        if left <= 0:
            break
        shown = _shown(variables, arguments)
        print(f"\n$ {shown}", flush=True)
        exit_code = _run(variables, arguments, left)
        if exit_code:
            print(f"\n!!! Exploring found something. Repeat it; with --lf, what failed alone:\n  {shown}", flush=True)
            return exit_code
    print("\nExplored, and found nothing.", flush=True)
    return 0


def _run(variables: dict[str, str], arguments: list[str], seconds: float) -> int:
    """The exit code of pytest; 0 if the time was over before there was a failure."""
    command = [sys.executable, "-m", "pytest", "-x", *arguments]
    with subprocess.Popen(command, cwd=ROOT, env={**os.environ, **variables}) as running:
        try:
            return running.wait(seconds)
        except subprocess.TimeoutExpired:
            running.send_signal(signal.SIGINT)  # on which pytest ends its PostgreSQL
        try:
            running.wait(LONGEST_END)
        except subprocess.TimeoutExpired:
            running.kill()
    return 0


def _steps() -> Iterator[Step]:
    """Endless: the next step is asked for while there is time."""
    choose = random.Random(SEED)
    while True:
        seed = choose.randrange(1, 2**31)
        properties = [
            (
                {"I3TASKS_EXAMPLES": str(EXAMPLES)},
                ["-n", "0", "-m", "hypothesis", f"--hypothesis-seed={seed}", *arguments],
            )
            for arguments in PROPERTIES
        ]
        simulation = {
            "I3TASKS_SIMULATION_SCHEDULES": str(SCHEDULES * EXAMPLES),
            "I3TASKS_SIMULATION_FIRST_SEED": str(seed),
        }
        yield from choose.sample([*properties, (simulation, [SIMULATION])], 4)


def _shown(variables: dict[str, str], arguments: list[str]) -> str:
    return " ".join(
        [*(f"{name}={value}" for name, value in variables.items()), "python -m pytest", shlex.join(arguments)]
    )


if __name__ == "__main__":
    sys.exit(main())
