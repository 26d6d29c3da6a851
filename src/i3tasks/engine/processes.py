"""Child processes that run functions for this one: spawned, kept warm, and ended when the call is cancelled.

A cancelled call's function is told to end by SIGTERM, and its process is killed if it goes on after a grace. A process
manager sends SIGTERM to children, too: a text that the parent has sent down the pipe before tells the two apart.
"""

from __future__ import annotations

import asyncio
import faulthandler
import math
import os
import pickle
import runpy
import select
import signal
import struct
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from io import FileIO
from types import ModuleType
from typing import Any, cast

IDLE_SECONDS = 300.0
"""A process that has waited for work for so long is ended as soon as another one is asked for."""

CAN_DUMP = hasattr(faulthandler, "register")  # not on Windows
DUMP_SECONDS = 0.05
DUMP_LOOKS = 40
_LENGTH = struct.Struct("!Q")
_SERVE = f"from {__name__} import serve; serve()"


class ProcessDied(Exception):
    """The process ended before it gave an answer."""


Grace = Callable[[], tuple[float, str]]
"""For how many seconds a cancelled function may go on, and what it is told. Asked when its call is cancelled."""


def no_grace() -> tuple[float, str]:
    """The process is killed."""
    return 0, ""


class ChildProcesses:
    """Runs functions in at most `most` processes. They end with the event loop, or at `close`."""

    def __init__(self, most: int) -> None:
        self._room = asyncio.Semaphore(most)
        self._idle: list[_Child] = []  # the one that was used last stands last
        self._all: set[_Child] = set()
        self._keeper: asyncio.Task[None] | None = None

    async def call(
        self,
        function: Callable[..., Any],
        *args: Any,
        begun: Callable[[Callable[[], str]], None] = lambda dump: None,
        grace: Grace = no_grace,
    ) -> Any:
        """Call the function in a process and return what it returns, or raise what it raises.

        `begun` gets a function that says where the process is, in faulthandler's words. If this call is cancelled, it
        gives what the function came to within its grace; without an answer by then, the process is killed and
        CancelledError is raised.
        """
        request = pickle.dumps((function, args), pickle.HIGHEST_PROTOCOL)
        async with self._room:
            child = self._waiting() or await self._start()
            begun(child.dump)
            try:
                answer = await child.ask(request)
            except asyncio.CancelledError:
                last_words = await child.stop(*grace())
                if last_words is None:
                    raise
                answer = last_words
            except BaseException:
                await child.end()
                raise
            else:
                self._idle.append(child)
        has_returned, value = pickle.loads(answer)
        if not has_returned:
            raise value
        return value

    def close(self) -> None:
        """End the processes that wait for work."""
        for child in self._idle:
            child.kill()
        self._idle.clear()

    def _waiting(self) -> _Child | None:
        self._idle = [child for child in self._idle if not child.has_ended]
        if not self._idle:
            return None
        child = self._idle.pop()
        for old in [other for other in self._idle if other.idle_seconds > IDLE_SECONDS]:
            self._idle.remove(old)
            old.kill()
        return child

    async def _start(self) -> _Child:
        if self._keeper is None:
            self._keeper = asyncio.create_task(self._end_with_the_loop())
        loop = asyncio.get_running_loop()
        dumps = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - closed once the process has ended
        number = dumps.fileno()
        # Its errors are answers, and no process would read them from a pipe.
        _, child = await loop.subprocess_exec(
            lambda: _Child(loop, self._all.discard, dumps),
            sys.executable,
            "-u",
            "-c",
            _SERVE,
            str(number if CAN_DUMP else -1),
            stderr=asyncio.subprocess.DEVNULL,
            pass_fds=(number,) if CAN_DUMP else (),
        )
        if not child.exited.done():
            self._all.add(child)
        child.send(pickle.dumps((sys.path, getattr(sys.modules["__main__"], "__file__", None))))
        return child

    async def _end_with_the_loop(self) -> None:
        """Wait to be cancelled, as `asyncio.run` does with all tasks that are left."""
        try:
            await asyncio.sleep(math.inf)
        finally:
            await asyncio.gather(*[child.end() for child in self._all])


class _Child(asyncio.SubprocessProtocol):
    """A process that runs one function after another."""

    def __init__(self, loop: asyncio.AbstractEventLoop, on_exit: Callable[[_Child], None], dumps: FileIO) -> None:
        self._loop = loop
        self._dumps = dumps
        self._on_exit = on_exit
        self._received = bytearray()
        self._answer: asyncio.Future[bytes] | None = None
        self._idle_since = loop.time()
        self.has_ended = False
        self.exited: asyncio.Future[None] = loop.create_future()

    @property
    def idle_seconds(self) -> float:
        return self._loop.time() - self._idle_since

    async def ask(self, request: bytes) -> bytes:
        self._answer = self._loop.create_future()
        if self.has_ended:
            raise ProcessDied
        self.send(request)
        answer = await self._answer
        self._idle_since = self._loop.time()
        return answer

    async def stop(self, seconds: float, text: str) -> bytes | None:
        """Tell the function to end, and end the process once it has. Return its answer; None: it gave none in time."""
        try:
            if seconds <= 0 or self.has_ended:
                return None
            self._answer = answer = self._loop.create_future()  # the wait for the future before was cancelled
            self._take_answer()
            self.send(text.encode())
            with suppress(ProcessLookupError):
                self._transport.send_signal(signal.SIGTERM)
            return await asyncio.wait_for(answer, seconds)
        except (TimeoutError, ProcessDied):
            return None
        finally:
            await self.end()

    def send(self, data: bytes) -> None:
        pipe = cast(asyncio.WriteTransport, self._transport.get_pipe_transport(0))
        pipe.write(_LENGTH.pack(len(data)) + data)

    def dump(self) -> str:
        """Where the process is, in faulthandler's words; "" if it can't say. Called in a thread that may wait."""
        number = self._dumps.fileno()
        start = os.fstat(number).st_size
        if not start:  # it has only begun, and the signal would end it
            return ""
        self._transport.send_signal(signal.SIGUSR1)
        size = start
        for _ in range(DUMP_LOOKS):
            time.sleep(DUMP_SECONDS)
            before, size = size, os.fstat(number).st_size
            if start < size == before:
                break
        return os.pread(number, size - start, start).decode(errors="replace")

    def kill(self) -> None:
        self.has_ended = True
        self._transport.close()  # which kills it

    async def end(self) -> None:
        """Kill the process, and wait until it is gone."""
        self.kill()
        await asyncio.shield(self.exited)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.SubprocessTransport, transport)

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        self._received += data
        self._take_answer()

    def _take_answer(self) -> None:
        if len(self._received) < _LENGTH.size:
            return
        end = _LENGTH.size + _LENGTH.unpack_from(self._received)[0]
        if len(self._received) >= end and self._answer is not None and not self._answer.done():
            answer = bytes(memoryview(self._received)[_LENGTH.size : end])
            self._received = bytearray()
            self._answer.set_result(answer)

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        self._note_end()

    def process_exited(self) -> None:
        self._note_end()
        self._transport.close()
        self._dumps.close()
        self._on_exit(self)
        self.exited.set_result(None)

    def _note_end(self) -> None:
        self.has_ended = True
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(ProcessDied())


# ------------------------------------------------------------------------------------------------- in the process

_requests = -1  # the end of the pipe from the parent, even if the function replaces its stdin


def serve() -> None:
    """Run the functions that the parent asks for, until it closes the pipe."""
    global _requests
    _requests, answers = os.dup(0), sys.stdout.buffer
    _dump_when_asked(int(sys.argv[1]))
    sys.stdin = open(os.devnull)  # noqa: SIM115 - for as long as the process lives
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    with suppress(EOFError):
        sys.path, main = pickle.loads(_received())
        _import_main(main)
        while True:
            answer = _answer(_received())
            answers.write(_LENGTH.pack(len(answer)) + answer)


def _dump_when_asked(number: int) -> None:
    """Write where this process is to the file, at each SIGUSR1, even while it is in code that is not Python."""
    if number >= 0:
        os.set_inheritable(number, False)
        faulthandler.register(signal.SIGUSR1, file=number, all_threads=False, chain=False)
        os.write(number, b"\n")  # from now on it may be asked


def told_to_end() -> str | None:
    """The parent's message to the running function that tells it to end, if there is one."""
    if not select.select([_requests], [], [], 0)[0]:
        return None
    try:
        return _received().decode()
    except EOFError:  # the parent is gone
        return ""


def _received() -> bytes:
    """The parent's next message. Nothing is read ahead, so that `told_to_end` sees a message that waits."""
    (size,) = _LENGTH.unpack(_read(_LENGTH.size))
    return _read(size)


def _read(size: int) -> bytes:
    parts: list[bytes] = []
    while size:
        part = os.read(_requests, min(size, 1 << 20))
        if not part:
            raise EOFError
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def _import_main(path: str | None) -> None:
    """Run the parent's script, which may configure Django, but not as __main__: multiprocessing does the same."""
    if path is None or not os.path.isfile(path):
        return
    module = ModuleType("__mp_main__")
    with suppress(Exception, SystemExit):  # the function reports what it lacks
        vars(module).update(runpy.run_path(path, run_name=module.__name__))
        sys.modules["__main__"] = sys.modules[module.__name__] = module


def _answer(request: bytes) -> bytes:
    """Whether the next function returned, and what it returned or raised."""
    try:
        return pickle.dumps(_call(request), pickle.HIGHEST_PROTOCOL)
    except BaseException as error:  # it can't be pickled
        return pickle.dumps((False, RuntimeError(f"{type(error).__name__}: {error}")))


def _call(request: bytes) -> tuple[bool, Any]:
    try:
        function, args = pickle.loads(request)
        return True, function(*args)
    except BaseException as error:
        return False, error
