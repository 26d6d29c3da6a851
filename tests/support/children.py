"""Workers, web processes and scripts as child processes, on the test database of this process."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.process_settings import CHANGES
from tests.support.databases import child_environment
from tests.support.rigs import until

ROOT = Path(__file__).resolve().parents[2]
COMMAND = str(Path(sys.executable).with_name("i3tasks"))
"""The console script, to be run by the interpreter that it belongs to."""


class Child:
    """A process whose output is read all the time."""

    def __init__(self, arguments: list[str], environment: dict[str, str], folder: Path = ROOT) -> None:
        self.output = ""
        self.process = subprocess.Popen(
            arguments,
            env=environment,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as lines:
            for line in lines:
                self.output += line

    def says(self, pattern: str, seconds: float = 30) -> str:
        """Wait for output that matches."""
        until(lambda: re.search(pattern, self.output) or self.process.poll() is not None, seconds, lambda: self.output)
        found = re.search(pattern, self.output)
        assert found, f"ended without saying so: {self.output}"
        return found[0]

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def signal_group(self, number: signal.Signals) -> None:
        """As a terminal does: to the process and all that it started."""
        os.killpg(self.process.pid, number)

    def ends(self, seconds: float = 30) -> int:
        """Wait for its end; the exit code."""
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"did not end in {seconds:g} s: {self.output}") from None
        self._reader.join(5)
        return code

    def stop(self) -> int:
        """SIGTERM, and wait."""
        self.signal(signal.SIGTERM)
        return self.ends()

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.ends()


class Children:
    """Starts processes with settings of this test's own."""

    def __init__(self, pubsub: dict[str, Any], **changes: Any) -> None:
        self.changes: dict[str, Any] = {"pubsub": pubsub, "i3tasks": changes}
        self._all: list[Child] = []

    @property
    def all(self) -> list[Child]:
        """Every process started so far."""
        return list(self._all)

    def environment(self, **changes: Any) -> dict[str, str]:
        together = {**self.changes, "i3tasks": {**self.changes["i3tasks"], **changes}}
        environment = child_environment(
            DJANGO_SETTINGS_MODULE="tests.process_settings", PYTHONUNBUFFERED="1", **{CHANGES: json.dumps(together)}
        )
        environment.pop("PUBSUB_EMULATOR_HOST", None)
        return environment

    def start(self, *arguments: str, folder: Path = ROOT, **changes: Any) -> Child:
        child = Child([sys.executable, *arguments], self.environment(**changes), folder)
        self._all.append(child)
        return child

    def worker(self, *options: str, folder: Path = ROOT, **changes: Any) -> Child:
        """A worker that has started."""
        child = self.start(COMMAND, "run-worker", *options, folder=folder, **changes)
        child.says("worker_started")
        return child

    def run(self, *arguments: str, folder: Path = ROOT, **changes: Any) -> Child:
        """A process that has ended."""
        child = self.start(*arguments, folder=folder, **changes)
        child.ends()
        return child

    @contextmanager
    def all_ended(self) -> Iterator[Children]:
        try:
            yield self
        finally:
            for child in self._all:
                child.kill()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
