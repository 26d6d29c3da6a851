"""Carries out one delivery: claim, run, settle, publish the follow-ups, and return the answer, ack or nack.

Workers, the push view and inline calls share this code. They differ in the gateway to the store and in the pool.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import anyio
from django.db import DatabaseError

from ..broker.deliveries import Delivery
from ..conf import get_config
from ..core.clock import SYSTEM_CLOCK, Clock
from ..core.deciding import GiveUp
from ..core.envelope import ENCODING, Envelope
from ..core.outcome import ErrorRecord, Failure, Outcome, Released, Success
from ..core.record import record
from ..core.values import decode, encode_result
from ..exceptions import EnvelopeError, PermanentError, Snooze, StoreUnavailable, UnknownTaskError
from ..registry import TaskSpec, concealer_of, find, load, policy_of
from ..store.concealing import call_text, has_secrets
from ..store.failures import report_failure
from ..store.operations import CLAIM, SETTLE
from ..store.requests import Claimed, ClaimRequest, Refusal, Settled, Settlement, Stale, TryRef
from ..store.settle import CANCELLED
from ..telemetry import emit, run_bound, wanted
from ..telemetry.propagation import processing, travels_now
from .bodies import Returned, is_cancelling
from .gateway import Gateway
from .lease_renewal import HandedBack, Run, Running, metadata_of
from .pool import Pool, PoolClosing, Slot
from .report import NotRun, Report, Verdict

UNKNOWN_FOR = timedelta(minutes=10)
"""How long a try without a row is waited for: django-i3tasks publishes before it commits the row."""
UNREGISTERED_FOR = timedelta(hours=1)
"""How long tries of a task that is not registered here are put off: a deploy may be in progress."""
PUT_OFF = timedelta(minutes=1)
NOTHING, LONGEST = timedelta(0), timedelta(days=3650)
"""Limits of a snooze."""

Queues = frozenset[str | None] | None
"""Queue names as the rows hold them, where null is the default queue. None instead of a set means all queues."""


@record
class Arrival:
    """A try that has arrived, by a message or from the database, and that the store has not been asked for yet."""

    envelope: Envelope
    publish_time: datetime
    queues: Queues
    """The queues whose tries its message may name; None means all."""
    is_ticket: bool = False
    """Whether a try of its queue that has a higher priority may be run instead: a message brings one's turn."""

    @property
    def spec(self) -> TaskSpec | None:
        """The task that it names. It only chooses the slot: the row decides what runs."""
        return find(self.envelope.module_name, self.envelope.func_name)


class Executor:
    """Carries out deliveries. Each event loop has its own executor."""

    def __init__(
        self,
        *,
        store: Gateway,
        pool: Pool,
        running: Running,
        follow_up: Callable[[Iterable[TryRef]], None],
        worker_id: str,
        clock: Clock = SYSTEM_CLOCK,
        unregistered_for: timedelta = UNREGISTERED_FOR,
        heeds_pauses: bool = True,
        is_callers: bool = False,
    ) -> None:
        """`is_callers`: it runs in its caller's own task, whose cancellation is the end of the try."""
        self._store = store
        self._pool = pool
        self._running = running
        self._follow_up = follow_up
        self._worker_id = worker_id
        self._clock = clock
        self._unregistered_for = unregistered_for
        self._heeds_pauses = heeds_pauses
        self._is_callers = is_callers

    def read(self, delivery: Delivery, queues: Queues = None) -> Arrival | Report:
        """Read a message. Returns a report if it is none of i3tasks.

        `queues` are the queues whose tries the message may name; None means all.
        """
        try:
            envelope = Envelope.from_bytes(delivery.data, delivery.attributes.get("encoding", ENCODING))
        except EnvelopeError as error:
            emit(
                "envelope_refused",
                error=str(error),
                queue=delivery.queue_name,
                message_id=delivery.message_id,
                delivery_attempt=delivery.delivery_attempt,
                data=delivery.data[:200],
            )
            return Report(Verdict.NACK, NotRun.UNREADABLE, str(error))
        return Arrival(envelope, delivery.publish_time, queues, is_ticket=True)

    def found(self, ref: TryRef) -> Arrival:
        """Take a try that was found waiting in the database."""
        envelope = Envelope(ref.execution_id, ref.try_id, ref.module_name, ref.func_name)
        return Arrival(envelope, self._clock.now(), None)

    async def execute(self, delivery: Delivery, queues: Queues = None) -> Report:
        """Carry out one message. Everything that the verdict depends on is committed when this returns."""
        arrival = self.read(delivery, queues)
        return arrival if isinstance(arrival, Report) else await self._admit(arrival)

    async def execute_waiting(self, ref: TryRef) -> Report:
        """Carry out a try that was found waiting in the database. NACK means that it was not run and still waits."""
        return await self._admit(self.found(ref))

    async def _admit(self, arrival: Arrival) -> Report:
        try:
            async with self._pool.slot(arrival.spec) as slot:
                return await self.carry_out(arrival, slot)
        except PoolClosing:
            return Report(Verdict.NACK, NotRun.STOPPING, envelope=arrival.envelope)

    async def carry_out(self, arrival: Arrival, slot: Slot) -> Report:
        """Carry out a try that has a slot of the pool: from its claim to the commit of its settlement."""
        envelope = arrival.envelope
        try:
            claimed = await self._claim(arrival, slot)
        except (StoreUnavailable, DatabaseError) as error:
            return Report(Verdict.NACK, NotRun.NO_ANSWER, str(error), envelope)
        if isinstance(claimed, Refusal):
            return self._refused(arrival, claimed)
        if claimed.displaced is not None:
            self._follow_up([claimed.displaced])
        facts = claimed.facts
        with run_bound(facts), processing(facts, claimed.trace_context):
            return await self._carry_out(envelope, claimed, slot)

    async def _carry_out(self, envelope: Envelope, claimed: Claimed, slot: Slot) -> Report:
        if wanted("try_started"):
            emit("try_started", queue_time=claimed.queue_time)
        began = self._clock.monotonic()
        with self._running.hold(claimed) as run:
            try:
                outcome, raised = await self._run(run, slot)
            except asyncio.CancelledError as error:
                if self._is_callers:
                    await self._give_up(claimed, error, began)
                raise
            duration = self._clock.monotonic() - began
            try:
                settled = await self._settle(claimed, outcome)
            except StoreUnavailable:
                raise
            except Exception as error:
                outcome, raised = self._refused_outcome(claimed, error, raised)
                settled = await self._settle(claimed, outcome)
        _report(claimed, outcome, settled, raised, duration)
        if not isinstance(settled, Settled):
            return Report(Verdict.ACK, NotRun.STALE, envelope=envelope, outcome=outcome, error=raised)
        if settled.due:
            self._follow_up(settled.due)
        return Report(Verdict.ACK, envelope=envelope, outcome=outcome, error=raised, claimed=claimed, settled=settled)

    async def _give_up(self, claimed: Claimed, error: asyncio.CancelledError, began: float) -> None:
        """Record that the caller was cancelled, by Ctrl-C or its own time-out; else the lease would have to end."""
        outcome = self._failure(claimed, error)
        # Shielded, because a cancel scope of anyio would cancel the settlement, too.
        with suppress(StoreUnavailable, DatabaseError), anyio.CancelScope(shield=True):
            settled = await self._settle(claimed, outcome)
            _report(claimed, outcome, settled, error, self._clock.monotonic() - began)

    async def _claim(self, arrival: Arrival, slot: Slot) -> Claimed | Refusal:
        envelope = arrival.envelope
        request = ClaimRequest(
            try_id=envelope.task_execution_try_id,
            execution_id=envelope.task_execution_id,
            token=self._clock.new_uuid7(),
            worker_id=self._worker_id,
            lease_seconds=self._running.lease_seconds,
            queues=arrival.queues,
            is_ticket=arrival.is_ticket,
            spare_threads=slot.spare_threads,
            heeds_pauses=self._heeds_pauses,
        )
        try:
            return await self._store.ask(CLAIM, request, self._running.expect)
        except BaseException:
            for try_id in (request.try_id, *(pk for pk, _ in request.taken)):
                self._running.forget(try_id)
            raise

    def _refused(self, arrival: Arrival, refusal: Refusal) -> Report:
        """Choose the verdict for a refused try: nack if the row is locked or may still appear, otherwise ack."""
        envelope = arrival.envelope
        if refusal is not Refusal.UNKNOWN:
            if wanted("try_refused"):
                emit("try_refused", **self._named(envelope), reason=refusal.value)
            is_over = refusal is not Refusal.LOCKED  # whose row can't be written now: Pub/Sub has to deliver again
            return Report(Verdict.ACK if is_over else Verdict.NACK, refusal, envelope=envelope)
        if self._clock.now() - arrival.publish_time < UNKNOWN_FOR:
            return Report(Verdict.NACK, refusal, envelope=envelope)
        emit("try_unknown", **self._named(envelope), published=arrival.publish_time)
        return Report(Verdict.ACK, refusal, envelope=envelope)

    def _named(self, envelope: Envelope) -> dict[str, Any]:
        """The fields about its try in the events about a message."""
        return {
            "execution_id": envelope.task_execution_id,
            "try_id": envelope.task_execution_try_id,
            "task": f"{envelope.module_name}.{envelope.func_name}",
            "worker": self._worker_id,
        }

    async def _run(self, run: Run, slot: Slot) -> tuple[Outcome, BaseException | None]:
        """Run the body and return its outcome, with the exception for inline callers, who raise it.

        Any other exception on the way, such as one caused by a row with wrong data, is a failure of the try, too.
        """
        try:
            return await self._outcome(run, slot)
        except UnknownTaskError as error:
            return self._unregistered(run.claimed, error), error
        except BaseException as error:
            if is_cancelling():
                raise
            return self._failure(run.claimed, error), error

    async def _outcome(self, run: Run, slot: Slot) -> tuple[Outcome, BaseException | None]:
        claimed = run.claimed
        spec = load(claimed.module_name, claimed.func_name)
        function = self._body(spec, run)
        answer = await slot.run(spec, run, function, spec.timeout(claimed.overrides))
        if isinstance(answer, Returned):
            encoded = encode_result(answer.value, get_config().settings.maximum_payload_bytes)
            return Success(encoded.data, encoded.text_of), None
        if isinstance(answer.error, HandedBack):
            return Released(), answer.error
        if isinstance(answer.error, Snooze):
            return Released(min(max(answer.error.delay, NOTHING), LONGEST), is_snoozed=True), answer.error
        return self._failure(claimed, answer.error), answer.error

    def _unregistered(self, claimed: Claimed, error: UnknownTaskError) -> Outcome:
        emit("task_unregistered", error=str(error))
        is_young = claimed.started_at - claimed.due_since < self._unregistered_for
        return Released(PUT_OFF) if is_young else self._failure(claimed, error)

    def _body(self, spec: TaskSpec, run: Run) -> Callable[[], Any]:
        claimed = run.claimed
        _require_shapes(claimed)
        kwargs: Mapping[str, Any] = {key: decode(value) for key, value in claimed.kwargs.items()}
        if spec.options.bind:
            kwargs = {**kwargs, spec.metadata_name: metadata_of(spec, run)}
        return partial(spec.function, *(decode(value) for value in claimed.args), **kwargs)

    def _failure(self, claimed: Claimed, error: BaseException) -> Failure:
        conceal = concealer_of(*claimed.call)
        try:
            policy = policy_of(claimed.module_name, claimed.func_name, claimed.overrides)
            return Failure.of(error, policy, claimed.try_number, self._clock, get_config().error_limits, conceal)
        except BaseException as problem:  # for example a class whose isinstance() raises
            if is_cancelling():
                raise
            return Failure(ErrorRecord.of(problem, conceal=conceal), GiveUp(exhausted=False))

    def _refused_outcome(
        self, claimed: Claimed, error: Exception, raised: BaseException | None
    ) -> tuple[Failure, BaseException]:
        """Return the failure of a try whose outcome can't be written. It is permanent: a retry would not help."""
        if isinstance(error, DatabaseError):
            refused = PermanentError(f"The database refused the result: {error}")
        else:
            refused = PermanentError(f"What follows the task can't be written: {type(error).__name__}: {error}")
        refused.__cause__ = error
        if raised is not None:
            error.__context__ = raised
        return self._failure(claimed, refused), refused

    async def _settle(self, claimed: Claimed, outcome: Outcome) -> Settled | Stale:
        settlement = Settlement(claimed.try_id, claimed.execution_id, claimed.token, outcome, travels_now())
        return await self._store.ask(SETTLE, settlement)


def _require_shapes(claimed: Claimed) -> None:
    """Raise PermanentError if the row's columns hold JSON of a wrong type, which no call of i3tasks writes."""
    for name, value, kind in (
        ("task_args", claimed.args, list),
        ("task_kwargs", claimed.kwargs, dict),
        ("options", claimed.overrides, dict),
    ):
        if not isinstance(value, kind):
            raise PermanentError(
                f"The execution's row holds a {type(value).__name__} in {name}, where a {kind.__name__} belongs. "
                "Correct the row, or delete the execution, and enqueue the task anew."
            )


def _report(
    claimed: Claimed, outcome: Outcome, settled: Settled | Stale, error: BaseException | None, duration: float
) -> None:
    """Emit how the try ended, within the block that binds its facts."""
    is_plain = isinstance(settled, Settled) and isinstance(outcome, Success) and outcome.text_of is None
    if is_plain and not wanted("try_succeeded"):
        return  # the common case costs nothing
    facts: dict[str, Any] = {"duration": duration, "queue_time": claimed.queue_time}
    if get_config().settings.log_arguments:
        facts["arguments"] = call_text(*claimed.call)
    if not isinstance(settled, Settled):
        emit("settlement_stale", **facts)
    elif isinstance(outcome, Success):
        emit("try_succeeded", **facts)
        if outcome.text_of is not None:
            emit("result_kept_as_text", returned=outcome.text_of)
    elif isinstance(outcome, Failure) or settled.is_cancelled:
        failure = outcome if isinstance(outcome, Failure) else CANCELLED
        conceals = has_secrets(claimed.module_name, claimed.func_name)
        report_failure(facts, failure, settled, error, conceals=conceals)
    else:
        emit("try_released", **facts, delay=outcome.delay.total_seconds())
