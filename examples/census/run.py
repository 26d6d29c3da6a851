"""Counts the Python standard library with i3tasks, from nothing: `python3 examples/census/run.py`.

Makes an environment and a SQLite database, starts the embedded Pub/Sub emulator, a web process (uvicorn) and a worker
on free ports, asks the web process to enqueue one task per file, shows the progress, prints the report, stops all.

    CENSUS_DATABASE=postgresql://...     uses PostgreSQL instead of SQLite
    PUBSUB_EMULATOR_HOST=host:port       uses that emulator, Google's for example, instead of the embedded one
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import secrets
import sys
import tempfile
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import environment  # noqa: E402
import processes  # noqa: E402
from processes import Process, ProcessFailed, exit_on_signals  # noqa: E402


def main() -> int:
    options = arguments()
    extras = ["example", "postgres"] if os.environ.get("CENSUS_DATABASE") else ["example"]
    python = environment.ensure(*extras)
    exit_on_signals()
    try:
        with data_folder(options.keep) as data:
            return Census(python, data, options).run()
    except ProcessFailed as failure:
        print(f"\n{failure}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nStopped.", file=sys.stderr)
        return 130


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").split("\n\n", 1)[0],
        epilog=(__doc__ or "").split("\n\n", 2)[2],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--concurrency", type=int, default=50, metavar="N", help="tasks at once (default: 50)")
    parser.add_argument("--threads", type=int, default=4, metavar="N", help="threads for sync tasks (default: 4)")
    parser.add_argument("--limit", type=int, metavar="N", help="count the first N files only")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="keep database, messages and logs in FOLDER")
    return parser.parse_args()


@contextlib.contextmanager
def data_folder(keep: Path | None) -> Iterator[Path]:
    if keep:
        keep.mkdir(parents=True, exist_ok=True)
        yield keep.resolve()
    else:
        with tempfile.TemporaryDirectory(prefix="census-", ignore_cleanup_errors=True) as folder:
            yield Path(folder)


class Census:
    """One run of the example: its processes and its steps."""

    def __init__(self, python: Path, data: Path, options: argparse.Namespace) -> None:
        self.python = python
        self.i3tasks = python.with_name(f"i3tasks{python.suffix}")
        self.data = data
        self.options = options
        self.environ = {
            **environment.clean_environ(),
            "DJANGO_SETTINGS_MODULE": "census.settings",
            "PYTHONUNBUFFERED": "1",
            "CENSUS_DATA": str(data),
        }

    def run(self) -> int:
        with contextlib.ExitStack() as running:
            emulator = self.emulator(running)
            if self.manage("migrate", "--verbosity", "0"):
                raise ProcessFailed("The database could not be prepared; the reason stands above.")
            self.await_emulator(emulator)
            web = self.web(running)
            worker = self.worker(running)
            watched = [process for process in (emulator, web, worker) if process]
            self.enqueue()
            if self.manage("census_follow", watched=watched):
                raise ProcessFailed(f"The end of the worker's log:\n{worker.tail()}")
            print()
            return self.manage("census_report")

    def emulator(self, running: contextlib.ExitStack) -> Process | None:
        """Start the embedded emulator. Returns None if the environment names another emulator."""
        if os.environ.get("PUBSUB_EMULATOR_HOST"):
            # A shared emulator may hold messages of an earlier run, so each run names its topics differently.
            self.environ.setdefault("CENSUS_NAMESPACE", f"census-{secrets.token_hex(4)}")
            return None
        command = [self.i3tasks, "emulator", "--host-port", "127.0.0.1:0", "--data-dir", self.data / "pubsub"]
        return self.start(running, "emulator", command)

    def await_emulator(self, emulator: Process | None) -> None:
        if emulator:
            ready = emulator.wait_for(r"PUBSUB_EMULATOR_HOST=([\w.:\[\]]+:\d+)")
            self.environ["PUBSUB_EMULATOR_HOST"] = ready[1]
        print(f"  Pub/Sub    {self.environ['PUBSUB_EMULATOR_HOST']}{'' if emulator else ' (yours)'}", flush=True)

    def web(self, running: contextlib.ExitStack) -> Process:
        # With port 0 the system chooses a free port, which the log names.
        options = ["--host", "127.0.0.1", "--port", "0", "--no-access-log", "--timeout-graceful-shutdown", "5"]
        web = self.start(running, "web process", [self.python, "-m", "uvicorn", "census.asgi:application", *options])
        url = web.wait_for(r"running on (http://127\.0\.0\.1:\d+)")[1]
        self.environ["CENSUS_URL"] = url
        print(f"  web        {url}", flush=True)
        return web

    def worker(self, running: contextlib.ExitStack) -> Process:
        concurrency, threads = str(self.options.concurrency), str(self.options.threads)
        options = ["--concurrency", concurrency, "--threads", threads]
        worker = self.start(running, "worker", [self.i3tasks, "run-worker", *options])
        worker.wait_for(r"worker_started")
        print(f"  worker     {concurrency} tasks at once, {threads} threads", flush=True)
        return worker

    def enqueue(self) -> None:
        limit = urllib.parse.urlencode({"limit": self.options.limit or ""}).encode()
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with direct.open(f"{self.environ['CENSUS_URL']}/census/", data=limit, timeout=60) as answer:
            print(f"  {json.load(answer)['files']} files enqueued\n", flush=True)

    def start(
        self, running: contextlib.ExitStack, name: str, command: list[str | Path], *, log: bool = True
    ) -> Process:
        path = self.data / f"{name.split()[0]}.log" if log else None
        return processes.start(running, name, command, env=self.environ, cwd=HERE, log=path)

    def manage(self, *command: str, watched: list[Process] | None = None) -> int:
        """Run a management command that prints to this terminal. Returns its exit code."""
        with contextlib.ExitStack() as running:
            process = self.start(running, command[0], [self.python, "manage.py", *command], log=False)
            return process.finish(watched or [])


if __name__ == "__main__":
    sys.exit(main())
