"""The embedded emulator beside a command that needs a broker."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from django.core.management.base import CommandError

from ..emulator.command import DEFAULT_DATA_DIR, is_loopback
from ..emulator.process import EmulatorError, EmulatorProcess

LOOK_EVERY_SECONDS = 1.0


@contextmanager
def embedded_emulator(host_port: str, started: Callable[[str], object] = print) -> Iterator[None]:
    """See to it that an emulator runs on `host_port` while the block lasts, and call `started` when it is ours.

    Another worker's emulator ends with that worker. Then the next one that finds nothing listening starts its own, on
    the same data. Raises CommandError when none can be started.
    """
    keeper = _Keeper(host_port, started)
    if not is_loopback(host_port.rpartition(":")[0].strip("[]")):
        _require_listening(host_port)
        yield
        return
    try:
        keeper.start_if_missing()
    except EmulatorError as error:
        raise CommandError(str(error)) from error
    keeper.begin()
    try:
        yield
    finally:
        keeper.end()


def is_listening(host_port: str) -> bool:
    """Whether a server takes connections there."""
    host, _, port = host_port.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=1).close()
    except OSError:
        return False
    return True


def _require_listening(host_port: str) -> None:
    if not is_listening(host_port):
        raise CommandError(
            f"Nothing listens on {host_port}, the emulator's address in PUBSUB_CONFIG['HOST']. Start an emulator "
            "there, or name an address of this machine (127.0.0.1:8085) to have one started."
        )


class _Keeper:
    """Starts an emulator whenever nothing listens, in a thread of its own."""

    def __init__(self, host_port: str, started: Callable[[str], object]) -> None:
        self._host_port = host_port
        self._started = started
        self._data_dir = Path(DEFAULT_DATA_DIR).absolute()  # a task's body may change the directory
        self._own: EmulatorProcess | None = None
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="i3tasks-emulator-keeper", daemon=True)

    def start_if_missing(self) -> None:
        """Start one if nothing listens and ours has ended. Raises EmulatorError."""
        if is_listening(self._host_port) or (self._own is not None and self._own.is_running):
            return
        emulator = EmulatorProcess(data_dir=self._data_dir, host_port=self._host_port)
        try:
            emulator.start()
        except EmulatorError:
            if not is_listening(self._host_port):  # else another worker was quicker
                raise
            return
        self._own = emulator
        self._started(f"Started the embedded emulator on {self._host_port}.")

    def begin(self) -> None:
        self._thread.start()

    def end(self) -> None:
        """Start no more, and stop ours."""
        self._ending.set()
        self._thread.join()
        if self._own is not None and self._own.is_running:
            self._own.stop()

    def _keep(self) -> None:
        while not self._ending.wait(LOOK_EVERY_SECONDS):
            with suppress(EmulatorError):  # the one that ended may still hold the folder: look again
                self.start_if_missing()
