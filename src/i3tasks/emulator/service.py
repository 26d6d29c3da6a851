"""The whole emulator: opens the data, serves requests, sweeps old data, and stops on request."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sqlite3
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..exceptions import I3TasksError
from .data_folder import prepare
from .push.pushers import Pushers
from .seed import Seed
from .seeding import plant
from .server import grpc_server
from .state import BrokerState
from .storage import Journal, NoJournal, SqliteJournal

logger = logging.getLogger("i3tasks.emulator")

SWEEP_SECONDS = 30.0
_STOP_SECONDS = 0.5


class CannotServe(I3TasksError):
    """The emulator can't start, or can't go on."""


@dataclass(frozen=True, slots=True)
class Options:
    """The options of the emulator's command line."""

    host: str = "127.0.0.1"
    port: int = 8085
    data_dir: Path | None = None  # None for in memory
    seed: Seed | None = None
    exit_with_parent: bool = False


@dataclass(frozen=True, slots=True)
class Ready:
    """The addresses that a client needs."""

    host_port: str
    certificates_url: str


class Emulator:
    """One run of the emulator."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._stopping = asyncio.Event()
        self._failure: Exception | None = None

    def stop(self) -> None:
        """Ask `run` to end."""
        self._stopping.set()

    async def run(self, announce: Callable[[Ready], None]) -> None:
        """Serve until `stop` is called. Calls `announce` once, when clients may connect."""
        self._listen_for_signals()
        journal = self._open_journal()
        try:
            await self._serve(journal, announce)
        finally:
            journal.close()
        if self._failure is not None:
            raise CannotServe(
                f"The emulator stopped, because it can't write its data: {self._failure}. Make room, or choose another "
                "folder with --data-dir."
            )

    async def _serve(self, journal: Journal, announce: Callable[[Ready], None]) -> None:
        broker = BrokerState(journal, time.time)
        server = grpc_server(broker)
        host_port = self._bind(server)
        broker.load()
        async with Pushers(broker) as pushers:
            # Clients may rely on the seed as soon as `announce` was called.
            await asyncio.gather(*plant(self._options.seed or Seed(), broker), return_exceptions=True)
            if self._failure is not None:
                return
            await server.start()
            sweeper = asyncio.create_task(_sweep(broker))
            announce(Ready(host_port, pushers.certificates_url))
            await self._stopping.wait()
            sweeper.cancel()
            await server.stop(_STOP_SECONDS)

    def _bind(self, server: Any) -> str:
        host, port = self._options.host, self._options.port
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        try:
            _try_to_bind(host, port)
            bound = server.add_insecure_port(address)
        except (OSError, RuntimeError) as error:
            reason = getattr(error, "strerror", None) or "gRPC refuses the address"
            raise CannotServe(f"Can't listen on {address}: {reason}. Choose another one with --host-port.") from error
        return f"{address.rpartition(':')[0]}:{bound}"

    def _open_journal(self) -> Journal:
        folder = self._options.data_dir
        if folder is None:
            return NoJournal()
        try:
            return SqliteJournal(prepare(folder), self._fail)
        except OSError as error:
            raise CannotServe(
                f"Can't write to the data folder {folder}: {error.strerror}. Choose another one with --data-dir."
            ) from error
        except sqlite3.Error as error:
            raise CannotServe(_about_data(folder, error)) from error

    def _fail(self, error: Exception) -> None:
        self._failure = error
        self.stop()

    def _listen_for_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        if self._options.exit_with_parent:
            threading.Thread(target=_await_parent, args=(loop, self.stop), daemon=True).start()


def _try_to_bind(host: str, port: int) -> None:
    """Bind the address for a test, to get the system's OSError: gRPC doesn't give the reason why it can't listen."""
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    with socket.socket(family, kind, protocol) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(address)
        probe.listen()


def _about_data(folder: Path, error: sqlite3.Error) -> str:
    if "locked" in str(error):
        return f"The data folder {folder} is in use by another emulator. Choose another one with --data-dir."
    return f"Can't use the data folder {folder}: {error}. Move it away, or choose another one with --data-dir."


def _await_parent(loop: asyncio.AbstractEventLoop, stop: Callable[[], None]) -> None:
    """Call `stop` when the parent process ends. It holds the other end of stdin, which closes at every kind of end."""
    while os.read(0, 1_024):
        pass
    loop.call_soon_threadsafe(stop)


async def _sweep(broker: BrokerState) -> None:
    while True:
        await asyncio.sleep(SWEEP_SECONDS)
        broker.sweep()
