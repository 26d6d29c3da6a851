"""Several worker processes under one that starts them, replaces those that die, and passes signals on."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import IO, Any, cast

from ..telemetry import emit
from ..threads.forking import signals_heard

SUPERVISOR_VARIABLE = "I3TASKS_SUPERVISOR"
"""Names, for a process, the end of a pipe that its supervisor holds open."""
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
STEADY_SECONDS = 60.0
"""A process that lived for so long counts as well: its death begins a new series."""
FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 30.0
MOST_DEATHS = 5
"""The number of deaths in a row, of every process, after which the supervisor gives up."""
LOOK_SECONDS = 5.0
WAKE_SECONDS = 0.5
SHOWN: Any = {
    "stdin": subprocess.DEVNULL,
    "stdout": subprocess.PIPE,
    "stderr": subprocess.STDOUT,
    "process_group": 0,
}
"""How a process starts whose output is read: it does not hear the terminal's signals either."""
LAST_WORDS_SECONDS = 1.0
FRESH_SECONDS = 20.0
"""The greatest age of a process's liveness file; a worker touches it every five seconds."""


@dataclass(slots=True)
class Member:
    """One of the processes, through all its replacements."""

    number: int
    command: Sequence[str]
    liveness_file: Path | None = None
    name: str = "A process"
    show: Callable[[IO[bytes]], object] | None = None
    """Reads all that its processes print, in a thread of each; then they also have process groups of their own."""
    listens: bool = False
    """Whether it needs a port that its predecessor must have given up: then it starts after the end of that."""
    process: subprocess.Popen[bytes] | None = None
    leaving: list[subprocess.Popen[bytes]] = field(default_factory=list)  # predecessors, which drain
    started_at: float = 0.0
    start_at: float | None = 0.0  # monotonic; None: it runs
    deaths: int = 0  # in a row

    @property
    def starts_at(self) -> float | None:
        """When to start its next process (monotonic), unless the end of another one comes first."""
        return None if self.listens and self.leaving else self.start_at

    @property
    def processes(self) -> list[subprocess.Popen[bytes]]:
        return [*self.leaving, *([self.process] if self.process is not None else [])]

    @property
    def is_fresh(self) -> bool:
        try:
            return self.liveness_file is None or time.time() - self.liveness_file.stat().st_mtime < FRESH_SECONDS
        except OSError:
            return False


class Supervisor:
    """Runs one process for each command until it is told to stop. Used in the main thread."""

    def __init__(self, members: Sequence[Member], *, liveness_file: Path | None = None) -> None:
        self._members = members
        self._liveness_file = liveness_file
        self._wakes: queue.SimpleQueue[None] = queue.SimpleQueue()
        """Gets an entry when there is something to look at. Unlike an Event, it may be put to by a signal handler that
        interrupts another one."""
        self._heard: list[int] = []
        self._is_stopping = False
        self._own_end, self._their_end = 0, 0
        self._readers: list[threading.Thread] = []
        self.exit_code = 0

    def run(self) -> int:
        """Supervise until SIGINT, SIGTERM or SIGHUP, which each process gets and drains at. Returns the exit code.

        It is 0 if all processes ended well when they were asked to, otherwise that of one that did not.
        """
        self._their_end, self._own_end = os.pipe()
        before = signal.signal(signal.SIGCHLD, lambda *_: self._wake())
        try:
            with signals_heard(self._hear, SIGNALS, with_echoes=True):
                while self._look():
                    self._wait(self._seconds_until_next())
        finally:
            signal.signal(signal.SIGCHLD, before)
            os.close(self._own_end)  # the remaining processes drain now
            os.close(self._their_end)
            for reader in self._readers:
                reader.join(LAST_WORDS_SECONDS)
        return self.exit_code

    def _hear(self, number: int, _: FrameType | None) -> None:
        self._heard.append(number)  # a process may be about to be noted just now
        self._wake()

    def _wake(self) -> None:
        self._wakes.put(None)

    def _wait(self, seconds: float | None) -> None:
        # Of two signals at the same time, such as SIGTERM and SIGCHLD, the system may give one to another thread: then
        # this one is not woken, and Python would call the handler at the next wake.
        longest = WAKE_SECONDS if seconds is None else min(seconds, WAKE_SECONDS)
        with suppress(queue.Empty):
            self._wakes.get(timeout=longest)
            while True:  # one look serves for all of them
                self._wakes.get_nowait()

    def _pass_on(self, number: int) -> None:
        is_first, self._is_stopping = not self._is_stopping, True
        for member in self._members:
            # Predecessors drain already: their second signal would end at once what they run.
            for process in member.processes[len(member.leaving) if is_first else 0 :]:
                with suppress(ProcessLookupError):
                    # One in a group of its own hears no terminal: SIGTERM ends it in silence, even while it starts.
                    process.send_signal(number if member.show is None else signal.SIGTERM)

    def _look(self) -> bool:
        """Note what has ended, start what is due. False once all is over."""
        while self._heard:
            self._pass_on(self._heard.pop(0))
        for member in self._members:
            member.leaving = [process for process in member.leaving if _ended(member, process) is None]
            code = None if member.process is None else _ended(member, member.process)
            if code is not None:
                member.process = None
                self._note_end(member, code)
        if self._is_stopping:
            return any(member.processes for member in self._members)
        for member in self._members:
            if member.starts_at is not None and member.starts_at <= time.monotonic():
                self._start(member)
        self._show_life()
        return True

    def _start(self, member: Member) -> None:
        environment = {**_environment(), SUPERVISOR_VARIABLE: str(self._their_end)}
        shown: Any = {} if member.show is None else SHOWN
        opened = subprocess.Popen(member.command, env=environment, pass_fds=(self._their_end,), **shown)
        process = member.process = cast("subprocess.Popen[bytes]", opened)
        if member.show is not None:
            reader = threading.Thread(target=_read, args=(process.stdout, member.show), daemon=True)
            reader.start()
            self._readers.append(reader)
        member.started_at, member.start_at = time.monotonic(), None

    def _note_end(self, member: Member, code: int) -> None:
        """`code` is negative if a signal ended the process: one of ours does so before a worker listens to it."""
        if self._is_stopping:
            self.exit_code = self.exit_code or (0 if -code in SIGNALS else as_exit_code(code))
            return
        if code == 0:  # after --max-tasks
            member.deaths, member.start_at = 0, time.monotonic()
            return
        self._note_death(member, code)

    def _note_death(self, member: Member, code: int) -> None:
        lasted = time.monotonic() - member.started_at >= STEADY_SECONDS
        member.deaths = 1 if lasted else member.deaths + 1
        pause = min(FIRST_PAUSE_SECONDS * 2 ** (member.deaths - 1), LONGEST_PAUSE_SECONDS)
        member.start_at = time.monotonic() + pause
        emit("process_died", process=member.number, exit_code=as_exit_code(code), pause=pause)
        if all(one.deaths >= MOST_DEATHS for one in self._members):
            self.exit_code = as_exit_code(code)
            self._pass_on(signal.SIGTERM)

    def _seconds_until_next(self) -> float | None:
        due = [member.starts_at - time.monotonic() for member in self._members if member.starts_at is not None]
        if self._liveness_file is not None:
            due.append(LOOK_SECONDS)
        return None if self._is_stopping or not due else max(min(due), 0.0)

    def _show_life(self) -> None:
        """Touch the liveness file while every process touches its own."""
        if self._liveness_file is not None and all(member.is_fresh for member in self._members):
            try:
                self._liveness_file.touch()
            except OSError as error:  # the probe decides
                emit("liveness_file_failed", error=str(error))


def _ended(member: Member, process: subprocess.Popen[bytes]) -> int | None:
    """The exit code of a process that has ended. Processes left behind in a group of its own end with it."""
    code = process.poll()
    if code is not None and member.show is not None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    return code


def _read(output: IO[bytes], show: Callable[[IO[bytes]], object]) -> None:
    with output:
        show(output)


def as_exit_code(code: int) -> int:
    """The exit code in the form that a shell shows."""
    return code if code >= 0 else 128 - code


def end_with_supervisor() -> None:
    """Drain this worker, if it has a supervisor, when that is gone, however it ended. Call this in the worker."""
    pipe = os.environ.pop(SUPERVISOR_VARIABLE, None)  # for this process alone
    if pipe is None:
        return

    def watch() -> None:
        with suppress(OSError):
            os.read(int(pipe), 1)  # nothing is ever written: it returns at the end
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="i3tasks-supervisor-watch", daemon=True).start()


def processes_of(options: Mapping[str, Any], folder: Path) -> list[Member]:
    """The processes that these options of `i3tasks_worker` ask for. `folder` is for their liveness files."""
    members = []
    for number in range(1, options["processes"] + 1):
        file = folder / str(number) if options["liveness_file"] is not None else None
        members.append(Member(number, _command(options, number, file), file))
    return members


def _command(options: Mapping[str, Any], number: int, liveness_file: Path | None) -> list[str]:
    """The command line of one process, in a fresh interpreter."""
    command = [sys.executable, "-m", "django", "i3tasks_worker", "--no-emulator", "--skip-checks"]
    command += [f"--queue={name}" for name in options["queues"] or ()]
    command += [f"--{name}={options[name]}" for name in ("concurrency", "threads", "streams", "verbosity")]
    if options["max_tasks"] is not None:
        command.append(f"--max-tasks={options['max_tasks']}")
    if options["worker_id"] is not None:
        command.append(f"--worker-id={options['worker_id']}-{number}")
    if options["metrics_port"] is not None:
        host, port = options["metrics_port"]
        command.append(f"--metrics-port={host}:{port and port + number - 1}")
    if liveness_file is not None:
        command.append(f"--liveness-file={liveness_file}")
    return command


def _environment() -> dict[str, str]:
    """This process's environment, with its settings and its module path, which `manage.py` may have changed."""
    path = [os.path.abspath(folder) for folder in sys.path]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path)}
