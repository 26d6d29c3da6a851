"""Google's own Pub/Sub emulator, which gcloud installs as a component and which runs on Java."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import threading
from pathlib import Path
from types import TracebackType

START_SECONDS = 60
STOP_SECONDS = 10


class GoogleEmulator:
    """Runs it from `start` to `stop`, or for a `with` block, in a process group of its own.

    Its launcher is called directly: `gcloud beta emulators pubsub start` does the same a second later. Started again,
    it listens where it did before, and remembers nothing.
    """

    def __init__(self) -> None:
        self.host_port = ""
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None

    @staticmethod
    def available() -> bool:
        """Whether gcloud, its pubsub-emulator component and Java are installed."""
        return _launcher() is not None and shutil.which("java") is not None

    @property
    def pid(self) -> int:
        """The process id of the launcher, which leads the process group."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> GoogleEmulator:
        """Start it, at first on a free port, and wait until it takes connections."""
        launcher = _launcher()
        assert launcher is not None, "ask available() first"
        port = int(self.host_port.rpartition(":")[2] or _free_port())
        self._process = subprocess.Popen(
            [str(launcher), "--host=127.0.0.1", f"--port={port}"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        started = threading.Event()
        self._reader = threading.Thread(target=_read_output, args=(self._process, started), daemon=True)
        self._reader.start()
        if not started.wait(START_SECONDS) or self._process.poll() is not None:
            self.stop()
            raise RuntimeError("Google's emulator did not start")
        self.host_port = f"127.0.0.1:{port}"
        return self

    def stop(self) -> None:
        """End the launcher and the Java process below it."""
        self._end(signal.SIGTERM, signal.SIGKILL)

    def kill(self) -> None:
        """The same at once, by SIGKILL."""
        self._end(signal.SIGKILL)

    def _end(self, *signals: signal.Signals) -> None:
        if self._process is None:
            return
        for number in signals:
            try:
                os.killpg(self._process.pid, number)
                self._process.wait(STOP_SECONDS)
            except (ProcessLookupError, subprocess.TimeoutExpired):
                continue
        if self._reader is not None:
            self._reader.join(STOP_SECONDS)  # until its output is closed, by Java, too
        self._process = None

    def __enter__(self) -> GoogleEmulator:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def _launcher() -> Path | None:
    gcloud = shutil.which("gcloud")
    if gcloud is None:
        return None
    sdk = Path(gcloud).resolve().parent.parent
    path = sdk / "platform" / "pubsub-emulator" / "bin" / "cloud-pubsub-emulator"
    return path if path.exists() else None


def _read_output(process: subprocess.Popen[str], started: threading.Event) -> None:
    assert process.stdout is not None
    with process.stdout as lines:
        for line in lines:
            if "Server started" in line:
                started.set()
    started.set()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
