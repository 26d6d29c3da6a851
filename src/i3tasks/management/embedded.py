"""The embedded emulator beside a command that needs a broker."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from django.core.management.base import CommandError

from ..emulator.command import DEFAULT_DATA_DIR
from ..emulator.process import EmulatorError, EmulatorProcess


@contextmanager
def embedded_emulator(host_port: str) -> Iterator[bool]:
    """Run the emulator on `host_port` while the block lasts, unless something listens there. Gives whether it did."""
    if is_listening(host_port):
        yield False
        return
    host = host_port.rpartition(":")[0].strip("[]")
    if not _is_loopback(host):
        raise CommandError(
            f"Nothing listens on {host_port}, the emulator's address in PUBSUB_CONFIG['HOST']. Start an emulator "
            "there, or name an address of this machine (127.0.0.1:8085) to have one started."
        )
    emulator = EmulatorProcess(data_dir=Path(DEFAULT_DATA_DIR), host_port=host_port)
    try:
        emulator.start()
    except EmulatorError as error:
        if not is_listening(host_port):  # or another worker was quicker
            raise CommandError(str(error)) from error
        yield False
        return
    try:
        yield True
    finally:
        emulator.stop()


def is_listening(host_port: str) -> bool:
    """Whether somebody takes connections there."""
    host, _, port = host_port.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=1).close()
    except OSError:
        return False
    return True


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
