"""Pools that run task bodies: coroutines in the event loop, sync functions in threads, each kind within its limit."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager, nullcontext, suppress
from functools import cached_property
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

from ..conf import get_config
from ..registry import TaskSpec
from .bodies import STOPPING_SECONDS, BodyEnding, Raised, Returned, acall, bounded
from .body_threads import LONGEST_WAIT_SECONDS, BodyThreads
from .concurrency import Admission, Room
from .connections import left_open
from .lane_of_body import LaneOfBody
from .lease_renewal import HandedBack, Run
from .shared_lanes import SharedLanes
from .try_loops import Tasks, TryLoops
from .waiting_bodies import CurrentBody, Waits, current_body

if TYPE_CHECKING:
    from .child_output import OutputSocket
    from .processes import ChildProcesses

__all__ = ["Carry", "Pool", "PoolClosing", "Room", "Slot", "WorkerPool"]


class PoolClosing(Exception):
    """Raised when a try waits for a slot and the worker is ending: no new body is started."""


class Slot(Protocol):
    """Room for one try."""

    @property
    def spare_threads(self) -> int | None:
        """The free threads, which other tries may take, too. None: a sync function finds a thread in any case."""
        ...

    async def run(
        self, spec: TaskSpec, run: Run, function: Callable[[], Any], timeout: float | None
    ) -> Returned | Raised:
        """Run the body and return its value or error. For a stopped body, that is the reason, such as TaskTimeout."""
        ...


class Pool(Protocol):
    """Runs task bodies. A slot is taken before the lease, so that no try that waits for one counts as running."""

    def slot(self, spec: TaskSpec | None) -> AbstractAsyncContextManager[Slot]:
        """Wait for a free slot for a body of this task. `spec` is None for a task that this process does not know."""
        ...


Carry = Callable[[Slot], Coroutine[Any, Any, None]]


class WorkerPool:
    """The pool of a worker or a web process: at most `concurrency` tries, at most `threads` sync bodies."""

    def __init__(self, *, concurrency: int, threads: int, database_lanes: int) -> None:
        self.admission = Admission(slots=concurrency, threads=threads)
        self._concurrency = concurrency
        self._waits = Waits(slots=concurrency, threads=threads)
        self._most_processes = threads  # a body that has its slot never waits for one
        self._threads = BodyThreads("i3tasks-sync", threads)
        self._coroutine_lanes = SharedLanes("i3tasks-lane", database_lanes)
        self._lane_of_body = LaneOfBody(self._coroutine_lanes)
        self._loops: TryLoops | None = None
        self._output_socket: OutputSocket | None = None

    def open(self, tasks: Tasks) -> None:
        """Let `submit` use tasks of this group. Bodies get copies of the current context, with what their try adds."""
        context = contextvars.copy_context()
        context.run(self._lane_of_body.enter)
        self._loops = TryLoops(tasks, self._concurrency, context)

    def submit(self, spec: TaskSpec | None, carry: Carry, refuse: Callable[[], None]) -> None:
        """Call `carry` in one of the pool's tasks when there is a slot, or `refuse` if no new body is started."""
        assert self._loops is not None, "the pool is open"
        self.admission.ask(_Carried(self, spec, self._loops, carry, refuse))

    def slot(self, spec: TaskSpec | None) -> AbstractAsyncContextManager[Slot]:
        return _Awaited(self, spec)

    @property
    def room(self) -> Room:
        """The room that is free now; none once the pool is closing."""
        return self.admission.room

    def stop_admitting(self) -> None:
        """Refuse every try that waits for a slot, now or later."""
        self.admission.close()

    def close(self) -> None:
        """End the threads and processes, each after the body that it is running."""
        self._threads.close()
        if "_processes" in vars(self):
            self._processes.close()
        self._coroutine_lanes.close()
        self._waits.close()
        if self._output_socket is not None:
            self._output_socket.close()

    async def run_in_loop(self, run: Run, function: Callable[[], Any], timeout: float | None) -> Returned | Raised:
        return await bounded(run, self._in_loop(run, function), timeout)

    async def run_in_thread(
        self, run: Run, function: Callable[[], Any], timeout: float | None, freed: Callable[[float | None], None]
    ) -> Returned | Raised:
        """`freed` is called when the thread is free again, which may be long after a timeout: see BodyThreads."""
        context = contextvars.copy_context()
        context.run(current_body.set, CurrentBody(self._waits, in_thread=True))
        return await self._threads.run(run, function, context, timeout, freed)

    async def run_in_process(self, spec: TaskSpec, run: Run, timeout: float | None) -> Returned | Raised:
        from .isolation import body_of, run_in_child

        with self._waits.child() as place:
            body = run_in_child(run, body_of(spec, run, place, self._output()), self._processes)
            patience = get_config().settings.process_grace_seconds + STOPPING_SECONDS
            return await bounded(run, body, timeout, patience=patience)

    @cached_property
    def _processes(self) -> ChildProcesses:
        """Made, and imported, for the first body that runs in one: most workers have none."""
        from .processes import ChildProcesses

        return ChildProcesses(self._most_processes)

    def _output(self) -> str | None:
        """Where children get this process's stdout and stderr. None if the machine can't hand them over."""
        from .child_output import CAN_HAND_OVER, OutputSocket

        if self._output_socket is None and CAN_HAND_OVER:
            with suppress(OSError):  # no room for the socket
                self._output_socket = OutputSocket()
        return None if self._output_socket is None else self._output_socket.path

    async def _in_loop(self, run: Run, function: Callable[[], Any]) -> Returned | Raised:
        """The coroutine of a task of its own, whose context nothing else has."""
        body = CurrentBody(self._waits, in_thread=False)
        current_body.set(body)
        try:
            async with nullcontext() if self._lane_of_body.is_entered else self._lane_of_body.entered():
                answer = await acall(run, function)
            return left_open(answer) if body.lane is not None and await body.lane.left_open() else answer
        finally:
            body.end()


class _Slot:
    """A slot of a WorkerPool. That of a sync function includes the right to a thread, until its body has ended.

    It is chosen by the task that the message names, but the claim may bring a try of another one, whose turn it is.
    So the right to a thread is given back, or asked for, once it is known what runs.
    """

    number = 0

    def __init__(self, pool: WorkerPool, spec: TaskSpec | None) -> None:
        self._pool = pool
        self.in_thread = spec is not None and not spec.is_coroutine
        self.is_in_process = spec is not None and spec.options.isolation == "process"
        self._has_thread = False
        self._is_for_process = False  # whether the thread that it has the right to stands for a child process
        self._is_in_thread = False  # whether its body is in a thread; it may stay there after the end of its run

    @property
    def spare_threads(self) -> int | None:
        return None if self._has_thread else self._pool.admission.spare_threads

    async def run(
        self, spec: TaskSpec, run: Run, function: Callable[[], Any], timeout: float | None
    ) -> Returned | Raised:
        if spec.is_coroutine:
            self._free_thread()
            return await self._pool.run_in_loop(run, function, timeout)
        is_in_process = spec.options.isolation == "process"
        if not self._has_thread or is_in_process > self.is_in_process:
            await self._get_thread(run, is_in_process)
        if run.reason is not None:
            return Raised(run.reason)
        if is_in_process:
            try:
                return await self._pool.run_in_process(spec, run, timeout)
            finally:
                self._free_thread()
        self._is_in_thread = True
        return await self._pool.run_in_thread(run, function, timeout, self._leave_thread)

    def leave(self) -> None:
        if not self._is_in_thread:
            self._free_thread()
        self._pool.admission.leave()

    async def _get_thread(self, run: Run, is_in_process: bool) -> None:
        """Wait for the right to a thread, unless `run` is stopped. One that takes too long is handed back.

        A slot that is claimed ahead of a free thread does for a sync function, but not for a child process.
        """
        if run.reason is not None:
            return
        had_thread, was_for_process = self._has_thread, self._is_for_process
        self._has_thread = False
        ending = BodyEnding(run, halt=lambda: None)
        self._pool.admission.ask_thread(_Claimed(self, ending, is_in_process))
        if had_thread:
            self._pool.admission.free_thread(of_process=was_for_process)
        limit = asyncio.get_running_loop().call_later(LONGEST_WAIT_SECONDS, run.stop, HandedBack())
        try:
            await ending.wait()
        finally:
            limit.cancel()

    def take_thread(self, *, is_for_process: bool) -> None:
        self._has_thread, self._is_for_process = True, is_for_process

    def _leave_thread(self, seconds: float | None) -> None:
        self._is_in_thread = False
        self._free_thread(seconds)

    def _free_thread(self, seconds: float | None = None) -> None:
        if self._has_thread:
            self._has_thread = False
            self._pool.admission.free_thread(seconds, of_process=self._is_for_process)

    def _enter(self) -> None:
        self._has_thread, self._is_for_process = self.in_thread, self.is_in_process


class _Claimed:
    """A claimed try that has a slot and waits for the right to a thread."""

    number = 0
    in_thread = True

    def __init__(self, slot: _Slot, ending: BodyEnding, is_in_process: bool) -> None:
        self._slot = slot
        self._ending = ending
        self.is_in_process = is_in_process

    def begin(self) -> bool:
        if self._ending.run.reason is not None:  # it was stopped
            return False
        self._slot.take_thread(is_for_process=self.is_in_process)
        self._ending.come()
        return True

    def refuse(self) -> None:
        self._ending.run.stop(HandedBack())


class _Carried(_Slot):
    """A slot whose try is carried out by one of the pool's tasks."""

    def __init__(
        self, pool: WorkerPool, spec: TaskSpec | None, loops: TryLoops, carry: Carry, refuse: Callable[[], None]
    ) -> None:
        super().__init__(pool, spec)
        self._loops = loops
        self._carry = carry
        self.refuse = refuse

    def begin(self) -> bool:
        self._enter()
        self._loops.give(self._carry_out)
        return True

    async def _carry_out(self) -> None:
        try:
            await self._carry(self)
        finally:
            self.leave()


class _Awaited(_Slot):
    """A slot for a task that waits for it and keeps it while a block runs."""

    _entered: asyncio.Future[None]

    def begin(self) -> bool:
        if self._entered.done():  # its task was cancelled
            return False
        self._enter()
        self._entered.set_result(None)
        return True

    def refuse(self) -> None:
        if not self._entered.done():
            self._entered.set_exception(PoolClosing())

    async def __aenter__(self) -> Slot:
        self._entered = asyncio.get_running_loop().create_future()
        self._pool.admission.ask(self)
        try:
            await self._entered
        except asyncio.CancelledError:
            if not self._entered.cancelled() and self._entered.exception() is None:
                self.leave()
            raise
        if self._pool.admission.is_closed:
            self.leave()
            raise PoolClosing
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.leave()
