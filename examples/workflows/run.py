"""Runs a workflow of each kind with i3tasks, from nothing: `python3 examples/workflows/run.py`.

Makes an environment and a SQLite database, starts the embedded Pub/Sub emulator and a worker, plays, stops all.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

import environment  # noqa: E402
import processes  # noqa: E402
from processes import Process, ProcessFailed, exit_on_signals  # noqa: E402


def main() -> int:
    python = environment.ensure("example")
    exit_on_signals()
    try:
        with tempfile.TemporaryDirectory(prefix="workflows-", ignore_cleanup_errors=True) as folder:
            return play(python, Path(folder))
    except ProcessFailed as failure:
        print(f"\n{failure}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nStopped.", file=sys.stderr)
        return 130


def play(python: Path, data: Path) -> int:
    i3tasks = python.with_name(f"i3tasks{python.suffix}")
    environ = {
        **environment.clean_environ(),
        "DJANGO_SETTINGS_MODULE": "workflows.settings",
        "PYTHONUNBUFFERED": "1",
        "WORKFLOWS_DATA": str(data),
    }
    with contextlib.ExitStack() as running:

        def start(name: str, *command: str | Path, log: bool = True) -> Process:
            path = data / f"{name}.log" if log else None
            return processes.start(running, name, command, env=environ, cwd=HERE, log=path)

        emulator = start("emulator", i3tasks, "emulator", "--host-port", "127.0.0.1:0", "--in-memory")
        environ["PUBSUB_EMULATOR_HOST"] = emulator.wait_for(r"PUBSUB_EMULATOR_HOST=([\w.:\[\]]+:\d+)")[1]
        if start("migrate", python, "manage.py", "migrate", "--verbosity", "0", log=False).finish([emulator]):
            raise ProcessFailed("The database could not be prepared; the reason stands above.")
        worker = start("worker", i3tasks, "run-worker", "--concurrency", "20", "--threads", "4")
        worker.wait_for("worker_started")
        return start("play", python, "manage.py", "play", log=False).finish([emulator, worker])


if __name__ == "__main__":
    sys.exit(main())
