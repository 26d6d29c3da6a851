"""Runs the tests: `python3 tests/run.py [pytest's arguments]`. Makes the environment it needs first.

The whole suite runs on SQLite; then those parts that touch the database run again on PostgreSQL, which comes with the
environment. `--db sqlite` or `--db postgres` runs one of the two only. Without a path three files run side by side,
because most tests wait for other processes; `-n 0` runs them one by one.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "examples"))

import environment  # noqa: E402

SIDE_BY_SIDE = ["-n", "3", "--dist", "loadfile"]
# Those whose tests speak to the database.
DATABASE_SUITES = ("tests/store", "tests/engine", "tests/http", "tests/faults")


def main(arguments: list[str]) -> int:
    python = environment.ensure("test")
    os.chdir(ROOT)
    if not any(argument.startswith("-n") or _is_path(argument) for argument in arguments):
        arguments = [*SIDE_BY_SIDE, *arguments]
    if any(argument.split("=")[0] == "--db" for argument in arguments):
        return pytest(python, arguments)
    paths = [argument for argument in arguments if _is_path(argument)]
    options = [argument for argument in arguments if argument not in paths]
    exit_code = pytest(python, [*options, *paths])
    suites = [path for path in paths or DATABASE_SUITES if path.startswith(DATABASE_SUITES) and _is_path(path)]
    if suites and exit_code not in {2, 3, 4}:
        print("\nThe same on PostgreSQL:", flush=True)
        exit_code = pytest(python, ["--db", "postgres", *options, *suites]) or exit_code
    return exit_code


def pytest(python: Path, arguments: list[str]) -> int:
    """pytest's exit code. 5, which says that nothing was collected, is a failure like any other."""
    command = [str(python), "-m", "pytest", *arguments]
    with subprocess.Popen(command, env=environment.clean_environ()) as running:
        # Ctrl-C is what pytest cleans up on: its PostgreSQL and its emulators end with it.
        signal.signal(signal.SIGTERM, lambda number, frame: running.send_signal(signal.SIGINT))
        try:
            return running.wait()
        except KeyboardInterrupt:  # the terminal told pytest, too
            return running.wait()


def _is_path(argument: str) -> bool:
    return not argument.startswith("-") and (ROOT / argument.split("::")[0]).exists()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
