"""Gives child processes the stdout and stderr of their worker, so that the output of isolated bodies is seen."""

from __future__ import annotations

import shutil
import socket
import tempfile
import threading
from contextlib import closing, suppress
from functools import cache
from pathlib import Path

CAN_HAND_OVER = hasattr(socket, "send_fds") and hasattr(socket, "AF_UNIX")
_STREAMS = [1, 2]
_SECONDS = 5.0  # a worker that has just died answers no more


class OutputSocket:
    """Hands this process's stdout and stderr to each child that asks at `path`, a socket for its own user alone."""

    def __init__(self) -> None:
        self._folder = tempfile.mkdtemp(prefix="i3tasks-")
        self.path = str(Path(self._folder, "output"))
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(self.path)
        self._socket.listen()
        threading.Thread(target=self._serve, name="i3tasks-output", daemon=True).start()

    def close(self) -> None:
        """Answer no child any more. Those that have asked keep the streams."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # wakes the thread
        self._socket.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _serve(self) -> None:
        while True:
            try:
                child, _ = self._socket.accept()
            except OSError:  # closed
                return
            with closing(child), suppress(OSError):  # a stream of this process is closed, or the child has ended
                socket.send_fds(child, [b"."], _STREAMS)


@cache
def output_at(path: str) -> tuple[int, int] | None:
    """In a child: the worker's stdout and stderr as file descriptors of this process, or None if it gave none."""
    with suppress(OSError), socket.socket(socket.AF_UNIX) as worker:
        worker.settimeout(_SECONDS)
        worker.connect(path)
        given = socket.recv_fds(worker, 1, len(_STREAMS))[1]
        if len(given) == len(_STREAMS):
            return given[0], given[1]
    return None
