"""What becomes of one delivery: claim, run, settle, follow up, and then, in one place, ack or nack.

A worker, the push view and inline calls share this; they differ in the store's gateway and in the pool.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from functools import partial
from typing import Any

from django.db import DatabaseError

from ..broker.handover import Delivery
from ..clock import SYSTEM_CLOCK, Clock
from ..conf import get_config
from ..envelope import ENCODING, Envelope
from ..exceptions import EnvelopeError, PermanentError, StoreUnavailable, UnknownTaskError
from ..outcome import Failure, Outcome, Released, Success
from ..registry import TaskSpec, find, load, policy_of
from ..store.refs import STALE, Claimed, ClaimRequest, Refusal, Settled, Settlement, Stale, TryRef
from ..store.writer import CLAIM, SETTLE
from ..telemetry import emit, facts_bound
from ..values import decode, encode_result
from .bodies import Returned
from .pool import Pool, PoolClosing
from .running import HandedBack, Run, Running, metadata_of
from .store import Store

UNKNOWN_FOR = timedelta(minutes=10)
"""django-i3tasks publishes before it commits: how long an unknown try may still become a row."""
UNREGISTERED_FOR = timedelta(hours=1)
"""A deploy may be under way: how long a task that nobody has registered is put off."""
PUT_OFF = timedelta(minutes=1)


class Verdict(Enum):
    """What to tell Pub/Sub."""

    ACK = "ack"
    NACK = "nack"


@dataclass(frozen=True, slots=True)
class Report:
    """How a delivery was dealt with. `reason` says why nothing ran; `outcome` is what running came to."""

    verdict: Verdict
    reason: str | None = None
    envelope: Envelope | None = None
    outcome: Outcome | None = None
    error: BaseException | None = None


class Executor:
    """Carries out deliveries. One for each event loop."""

    def __init__(
        self,
        *,
        store: Store,
        pool: Pool,
        running: Running,
        follow_up: Callable[[Iterable[TryRef]], None],
        worker_id: str,
        clock: Clock = SYSTEM_CLOCK,
        unregistered_for: timedelta = UNREGISTERED_FOR,
    ) -> None:
        self._store = store
        self._pool = pool
        self._running = running
        self._follow_up = follow_up
        self._worker_id = worker_id
        self._clock = clock
        self._unregistered_for = unregistered_for

    async def execute(self, delivery: Delivery) -> Report:
        """Deal with one message. The verdict holds once this returns: everything it rests on is committed."""
        try:
            envelope = Envelope.from_bytes(delivery.data, delivery.attributes.get("encoding", ENCODING))
        except EnvelopeError as error:
            emit("envelope_refused", error=str(error), message_id=delivery.message_id, data=delivery.data[:200])
            return Report(Verdict.NACK, f"unreadable: {error}")
        with facts_bound(try_id=envelope.task_execution_try_id):
            try:  # the names in the message only choose where to wait: the row decides what runs
                async with self._pool.slot(find(envelope.module_name, envelope.func_name)):
                    return await self._execute(envelope, delivery.publish_time)
            except PoolClosing:
                return Report(Verdict.NACK, "stopping", envelope)

    async def _execute(self, envelope: Envelope, publish_time: datetime) -> Report:
        try:
            claimed = await self._claim(envelope)
        except (StoreUnavailable, DatabaseError) as error:
            return Report(Verdict.NACK, f"no answer from the database: {error}", envelope)
        if isinstance(claimed, Refusal):
            return self._refused(envelope, claimed, publish_time)
        with self._running.hold(claimed) as run:
            outcome, raised = await self._run(run)
            try:
                settled = await self._settle(claimed, outcome)
            except DatabaseError as error:
                outcome, raised = self._refused_result(claimed, error)
                settled = await self._settle(claimed, outcome)
        _report(claimed, outcome, settled)
        if not isinstance(settled, Settled):
            return Report(Verdict.ACK, "stale", envelope, outcome, raised)
        self._follow_up(settled.due)
        return Report(Verdict.ACK, None, envelope, outcome, raised)

    async def _claim(self, envelope: Envelope) -> Claimed | Refusal:
        return await self._store.ask(
            CLAIM,
            ClaimRequest(
                try_id=envelope.task_execution_try_id,
                execution_id=envelope.task_execution_id,
                token=self._clock.new_uuid7(),
                worker_id=self._worker_id,
                lease_seconds=self._running.lease_seconds,
            ),
        )

    def _refused(self, envelope: Envelope, refusal: Refusal, publish_time: datetime) -> Report:
        """Nothing to do here, or nothing yet; the row knows when there will be."""
        if refusal is not Refusal.UNKNOWN:
            emit("try_refused", reason=refusal.value)
            return Report(Verdict.ACK, refusal.value, envelope)
        if self._clock.now() - publish_time < UNKNOWN_FOR:
            return Report(Verdict.NACK, refusal.value, envelope)
        emit("try_unknown", execution_id=envelope.task_execution_id, published=publish_time.isoformat())
        return Report(Verdict.ACK, refusal.value, envelope)

    async def _run(self, run: Run) -> tuple[Outcome, BaseException | None]:
        """Run the body. Beside the outcome, the error itself, for an inline caller to raise."""
        claimed = run.claimed
        try:
            spec = load(claimed.module_name, claimed.func_name)
            function = self._body(spec, run)
        except UnknownTaskError as error:
            return self._unregistered(claimed, error), error
        except Exception as error:
            return self._failure(claimed, error), error
        answer = await self._pool.run(spec, run, function, spec.timeout(claimed.overrides))
        if isinstance(answer, Returned):
            return Success(encode_result(answer.value)), None
        if isinstance(answer.error, HandedBack):
            return Released(), answer.error
        return self._failure(claimed, answer.error), answer.error

    def _unregistered(self, claimed: Claimed, error: UnknownTaskError) -> Outcome:
        emit("task_unregistered", error=str(error))
        is_young = claimed.started_at - claimed.due_since < self._unregistered_for
        return Released(PUT_OFF) if is_young else self._failure(claimed, error)

    def _body(self, spec: TaskSpec, run: Run) -> Callable[[], Any]:
        claimed = run.claimed
        kwargs: Mapping[str, Any] = {key: decode(value) for key, value in claimed.kwargs.items()}
        if spec.options.bind:
            kwargs = {**kwargs, "task_metadata": metadata_of(spec, run)}
        return partial(spec.function, *(decode(value) for value in claimed.args), **kwargs)

    def _failure(self, claimed: Claimed, error: BaseException) -> Failure:
        policy = policy_of(claimed.module_name, claimed.func_name, claimed.overrides)
        return Failure.of(error, policy, claimed.try_number, self._clock, get_config().error_limits)

    def _refused_result(self, claimed: Claimed, error: DatabaseError) -> tuple[Failure, BaseException]:
        """The database won't have what the body returned. That is the task's failure, and repeating it won't help."""
        refused = PermanentError(f"The database refused the result: {error}")
        refused.__cause__ = error
        return self._failure(claimed, refused), refused

    async def _settle(self, claimed: Claimed, outcome: Outcome) -> Settled | Stale:
        settlement = Settlement(claimed.try_id, claimed.execution_id, claimed.token, outcome)
        return await self._store.ask(SETTLE, settlement)


def _report(claimed: Claimed, outcome: Outcome, settled: Settled | Stale) -> None:
    facts = {"task": f"{claimed.module_name}.{claimed.func_name}", "try_number": claimed.try_number}
    if settled is STALE:
        emit("settlement_stale", **facts)
    elif isinstance(outcome, Success):
        emit("try_succeeded", **facts)
    elif isinstance(outcome, Failure):
        emit("try_failed", **facts, error_class=outcome.error.error_class, error=outcome.error.message)
