"""Runs the tests: `python3 tests/run.py [pytest's arguments]`. Makes the environment it needs first.

The suite runs on SQLite; then those parts that touch the database run again on PostgreSQL, which comes with the
environment. LEFT_OUT has what runs on one of the two only. `--db sqlite` or `--db postgres` runs one of the two alone.
Without a path three files run side by side, because most tests wait for other processes; `-n 0` runs them one by one.
What fails beside others runs once more by itself: on a small machine a neighbour can take more time than a test allows
for. Both results are printed, and what fails again is a failure.
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

TESTS_FAILED = 1  # an exit code of pytest
SIDE_BY_SIDE = ["-n", "3", "--dist", "loadfile"]
# Those whose tests speak to the database.
DATABASE_SUITES = ("tests/store", "tests/engine", "tests/backend", "tests/http", "tests/testing", "tests/faults")
# Files of which one database tells as much as two: what is about processes, command lines, requests and tokens runs on
# SQLite, and processes that end between any two steps on PostgreSQL, as in production.
LEFT_OUT = {
    "sqlite": ("tests/faults/test_crash_matrix.py",),
    "postgres": (
        "tests/engine/test_cli.py",
        "tests/engine/test_settings_errors.py",
        "tests/engine/test_worker_process.py",
        "tests/http/test_admin_answers.py",
        "tests/http/test_fuzz.py",
        "tests/http/test_fuzz_cost.py",
        "tests/http/test_oidc.py",
    ),
}


def main(arguments: list[str]) -> int:
    python = environment.ensure("test")
    os.chdir(ROOT)
    if not any(argument.startswith("-n") or _is_path(argument) for argument in arguments):
        arguments = [*SIDE_BY_SIDE, *arguments]
    if any(argument.split("=")[0] == "--db" for argument in arguments):
        return pytest(python, arguments)
    paths = [argument for argument in arguments if _is_path(argument)]
    options = [argument for argument in arguments if argument not in paths]
    exit_code = pytest(python, [*options, *(paths or left_out("sqlite"))])
    suites = [path for path in paths or DATABASE_SUITES if path.startswith(DATABASE_SUITES) and _is_path(path)]
    if suites and exit_code not in {2, 3, 4}:
        print("\nThe same on PostgreSQL:", flush=True)
        suites += [] if paths else left_out("postgres")
        exit_code = pytest(python, ["--db", "postgres", *options, *suites]) or exit_code
    return exit_code


def left_out(database: str) -> list[str]:
    return [f"--ignore={name}" for name in LEFT_OUT[database]]


def pytest(python: Path, arguments: list[str]) -> int:
    """pytest's exit code. 5, which says that nothing was collected, is a failure like any other."""
    exit_code = run(python, arguments)
    if exit_code == TESTS_FAILED and "loadfile" in arguments:
        print("\nWhat failed beside others, by itself:", flush=True)
        exit_code = run(python, [*arguments, "-n", "0", "-x", "--last-failed", "--last-failed-no-failures=none"])
        if not exit_code:
            print("\nIt passes by itself: beside others it is given too little time. Please report it.", flush=True)
    return exit_code


def run(python: Path, arguments: list[str]) -> int:
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
