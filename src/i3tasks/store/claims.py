"""Claims: a worker asks for a try, and gets it with a lease, or is refused it for a named reason."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

from django.db.models import Exists, OuterRef

from ..models import TaskExecution, TaskExecutionResult, TaskExecutionTry
from .claim_batch import Bid, Call, Candidate, ClaimBatch, Holder
from .database import DATABASE_TIME, Instant, Rows, atomic, locked, rows, with_database_time
from .pauses import pause_of, set_aside
from .postgres.claiming import claim_plain
from .postgres.statements import Question, are_known
from .priority import Turn, displace, last_look, take_turns
from .requests import LOCKED, Claimed, ClaimRequest, Locked, Refusal
from .suspects import put_off_suspects

A_MOMENT = timedelta(microseconds=1)
LAST_MOMENT = datetime.max.replace(tzinfo=UTC)


def claim(
    requests: Sequence[ClaimRequest], *, now: Instant = DATABASE_TIME, wait: bool = False
) -> list[Claimed | Refusal | Locked]:
    """Lease each try that is claimable to its requester; a try asked for twice goes to the first.

    Claimable: not completed, no token, no cancel request, `run_after` past, its queue not paused. An expired lease is
    not claimable: `expiry.expire_leases` ends such a try and writes the next one.
    """
    tokens = _tokens(requests)
    heed_turns = not wait  # with `wait` the caller's own thread runs this try, and no other
    if len(requests) == 1 and are_known(now) and not (heed_turns and last_look.are_any):
        # One plain claim is one statement, which is a transaction by itself, if it is not part of another.
        if won := claim_plain(requests, _of_each(requests, tokens), now, wait=wait, heed_turns=heed_turns).ask():
            return [*won.values()]
        with atomic():
            return _claim_rest(requests, tokens, now, wait=wait, heed_turns=heed_turns)
    with atomic():
        return _answers(requests, tokens, now, wait=wait, heed_turns=heed_turns)


def ask_plain(requests: Sequence[ClaimRequest], now: Instant) -> Question[dict[int, Claimed]] | None:
    """The question that leases those of the tries that may run now. None: others may have their turn first."""
    if last_look.are_any:
        return None
    return claim_plain(requests, _of_each(requests, _tokens(requests)), now, wait=False, heed_turns=True)


def claim_rest(
    requests: Sequence[ClaimRequest], *, now: Instant = DATABASE_TIME, wait: bool = False
) -> list[Claimed | Refusal | Locked]:
    """`claim` for requests of which `ask_plain` has left each."""
    with atomic():
        return _claim_rest(requests, _tokens(requests), now, wait=wait, heed_turns=not wait)


def _tokens(requests: Iterable[ClaimRequest]) -> dict[Holder, UUID]:
    """The token of each holder's leases in a batch: that of its first request, so that one statement can write it."""
    tokens: dict[Holder, UUID] = {}
    for request in requests:
        tokens.setdefault(Holder.of(request), request.token)
    return tokens


def _answers(
    requests: Sequence[ClaimRequest], tokens: Mapping[Holder, UUID], now: Instant, *, wait: bool, heed_turns: bool
) -> list[Claimed | Refusal | Locked]:
    won: Mapping[int, Claimed] = {}
    if heed_turns and last_look.are_any and are_known(now):  # a claim that heeds turns would leave them all
        turns = take_turns(requests, _of_each(requests, tokens), now)
        return _claim_in_turn(requests, turns or {}, tokens, now, wait)
    if are_known(now):
        won = claim_plain(requests, _of_each(requests, tokens), now, wait=wait, heed_turns=heed_turns).ask()
    rest = [request for request in requests if request.try_id not in won]
    answers = iter(_claim_rest(rest, tokens, now, wait=wait, heed_turns=heed_turns) if rest else ())
    return [won[request.try_id] if request.try_id in won else next(answers) for request in requests]


def _claim_rest(
    requests: Sequence[ClaimRequest], tokens: Mapping[Holder, UUID], now: Instant, *, wait: bool, heed_turns: bool
) -> list[Claimed | Refusal | Locked]:
    """Claim what is not plain."""
    return (_claim_by_turns if heed_turns else _claim)(requests, tokens, now, wait)


def _of_each(requests: Sequence[ClaimRequest], tokens: Mapping[Holder, UUID]) -> list[UUID]:
    return [tokens[Holder.of(request)] for request in requests]


def _claim_by_turns(
    requests: Sequence[ClaimRequest], tokens: Mapping[Holder, UUID], now: Instant, wait: bool
) -> list[Claimed | Refusal | Locked]:
    turns = take_turns(requests, _of_each(requests, tokens), now)
    if turns is None:
        return _claim(requests, tokens, now, wait)
    return _claim_in_turn(requests, turns, tokens, now, wait)


def _claim_in_turn(
    requests: Sequence[ClaimRequest],
    turns: Mapping[int, Turn],
    tokens: Mapping[Holder, UUID],
    now: Instant,
    wait: bool,
) -> list[Claimed | Refusal | Locked]:
    instead = [_instead(request, turns) for request in requests]
    answers = _answers(instead, tokens, now, wait=wait, heed_turns=False)
    return answers if not turns else _after_turns(requests, turns, answers, tokens, now)


def _instead(request: ClaimRequest, turns: Mapping[int, Turn]) -> ClaimRequest:
    if request.try_id not in turns:
        return request
    try_id, execution_id = turns[request.try_id]
    return replace(request, try_id=try_id, execution_id=execution_id, taken=[])


def _after_turns(
    requests: Sequence[ClaimRequest],
    turns: Mapping[int, Turn],
    answers: Sequence[Claimed | Refusal | Locked],
    tokens: Mapping[Holder, UUID],
    now: Instant,
) -> list[Claimed | Refusal | Locked]:
    """Displace the requested try if another one was leased instead; claim it after all if the other one was refused."""
    asked = [(request, answer) for request, answer in zip(requests, answers, strict=True) if request.try_id in turns]
    displaced = displace([request.try_id for request, answer in asked if isinstance(answer, Claimed)], now)
    refused = [request for request, answer in asked if not isinstance(answer, Claimed)]
    again = _claim(refused, tokens, now, wait=False) if refused else []
    of_refused = dict(zip((request.try_id for request in refused), again, strict=True))
    return [
        replace(answer, displaced=displaced.get(request.try_id))
        if request.try_id in turns and isinstance(answer, Claimed)
        else of_refused.get(request.try_id, answer)
        for request, answer in zip(requests, answers, strict=True)
    ]


def _claim(
    requests: Sequence[ClaimRequest], tokens: Mapping[Holder, UUID], now: Instant, wait: bool
) -> list[Claimed | Refusal | Locked]:
    bids = _select(requests, now, wait)
    batches = _batches(bids, tokens)
    for batch in batches:
        _judge(batch)
    _award(bids)
    _put_off_early(bids)
    _set_aside_paused(bids)
    for batch in batches:
        _hold_back_suspects(batch)
        _lease(batch)
    return [bid.answer for bid in bids if bid.answer is not None]


def _select(requests: Sequence[ClaimRequest], now: Instant, wait: bool) -> list[Bid]:
    """Lock the tries, and read the calls. A try that another transaction has locked is answered with Locked."""
    candidates = _candidates({request.try_id for request in requests}, now, wait)
    calls = _calls({candidate.task_execution_id for candidate in candidates.values()})
    bids = []
    for request in requests:
        candidate = candidates.get(request.try_id)
        if candidate is not None and candidate.task_execution_id != request.execution_id:
            candidate = None
        bids.append(Bid(request, candidate, calls.get(request.execution_id) if candidate else None))
    hidden = _present(request.try_id for request in requests if request.try_id not in candidates)
    for bid in bids:
        if bid.request.try_id in hidden:
            bid.answer = LOCKED
    return bids


def _batches(bids: Iterable[Bid], tokens: Mapping[Holder, UUID]) -> list[ClaimBatch]:
    by_holder: defaultdict[Holder, list[Bid]] = defaultdict(list)
    for bid in bids:
        by_holder[Holder.of(bid.request)].append(bid)
    return [ClaimBatch(holder, tokens[holder], group) for holder, group in by_holder.items()]


def _judge(batch: ClaimBatch) -> None:
    """Refuse what can't be claimed."""
    for bid in batch.open():
        bid.answer = _refusal(bid, batch.token)


def _refusal(bid: Bid, token: UUID) -> Refusal | None:
    candidate, call, queues = bid.candidate, bid.call, bid.request.queues
    if candidate is None or call is None or (queues is not None and call.queue_name not in queues):
        return Refusal.UNKNOWN
    if candidate.is_completed or candidate.has_result:
        return Refusal.COMPLETED
    if candidate.claim_token is not None:
        return None if candidate.claim_token == token else Refusal.LEASED
    if call.cancel_requested_at is not None:
        return Refusal.CANCELLED
    if candidate.run_after is not None and candidate.run_after > candidate.database_time:
        return Refusal.NOT_DUE
    if call.pause_id is not None and bid.request.heeds_pauses:
        return Refusal.PAUSED
    return None


def _award(bids: Iterable[Bid]) -> None:
    """Award each try to the first bid for it."""
    taken: set[int] = set()
    for bid in bids:
        if bid.answer is None and bid.request.try_id in taken:
            bid.answer = Refusal.LEASED
        elif bid.answer is None:
            taken.add(bid.request.try_id)


def _put_off_early(bids: Iterable[Bid]) -> None:
    """Publish tries that came too early again at their time: their messages are gone.

    A moment later than its time, in fact: the confirmation of the early publish, which may still be under way, must
    find another `dispatch_at` than it expects.
    """
    early: defaultdict[datetime, list[int]] = defaultdict(list)
    for bid in bids:
        if bid.answer is Refusal.NOT_DUE and bid.candidate is not None and bid.candidate.run_after is not None:
            early[bid.candidate.run_after].append(bid.candidate.pk)
    for run_after, ids in early.items():
        again_at = min(run_after, LAST_MOMENT - A_MOMENT) + A_MOMENT
        rows(TaskExecutionTry).filter(pk__in=ids).update(dispatch_at=again_at, publish_count=0)


def _set_aside_paused(bids: Iterable[Bid]) -> None:
    """Set tries that came during a pause aside until it ends: their messages are gone."""
    paused: defaultdict[int, list[int]] = defaultdict(list)
    for bid in bids:
        if bid.answer is Refusal.PAUSED and bid.call is not None and bid.call.pause_id is not None:
            paused[bid.call.pause_id].append(bid.request.try_id)
    set_aside(paused)


def _hold_back_suspects(batch: ClaimBatch) -> None:
    claimable = [bid.candidate for bid in batch.open() if bid.candidate is not None]
    held_back = put_off_suspects(claimable, batch.holder.worker_id)
    for bid in batch.open():
        if bid.request.try_id in held_back:
            bid.answer = Refusal.SUSPECT


def _lease(batch: ClaimBatch) -> None:
    """Write the leases of the bids that have won."""
    won = batch.open()
    if not won:
        return
    assert won[0].candidate is not None
    at = won[0].candidate.database_time
    rows(TaskExecutionTry).filter(pk__in=[bid.request.try_id for bid in won]).update(
        claim_token=batch.token,
        worker_id=batch.holder.worker_id,
        started_at=at,
        lease_until=at + timedelta(seconds=batch.holder.lease_seconds),
        dispatch_at=None,
        updated_at=at,
    )
    for bid in won:
        bid.answer = _claimed(bid, batch.token)


def _claimed(bid: Bid, token: UUID) -> Claimed:
    candidate, call = bid.candidate, bid.call
    assert candidate is not None
    assert call is not None
    return Claimed(
        try_id=candidate.pk,
        execution_id=call.pk,
        execution_uuid=call.uuid,
        token=token,
        try_number=candidate.try_number,
        module_name=call.task_path,
        func_name=call.task_name,
        args=call.task_args,
        kwargs=call.task_kwargs,
        overrides=call.options or {},
        queue_name=call.queue_name,
        asked_at=candidate.asked_at,
        due_since=candidate.run_after or candidate.asked_at,
        started_at=candidate.database_time,
        worker_id=bid.request.worker_id,
        trace_context=call.trace_context,
    )


def _candidates(ids: Iterable[int], now: Instant, wait: bool) -> dict[int, Candidate]:
    # django-i3tasks records a failed try by its result only, and its message is likely to come again.
    has_result = Exists(rows(TaskExecutionResult).filter(task_execution_try=OuterRef("pk")))
    tries = with_database_time(rows(TaskExecutionTry).filter(pk__in=ids).annotate(has_result=has_result), now)
    found = (Candidate(*row) for row in locked(tries, wait=wait).values_list(*Candidate._fields))
    return {candidate.pk: candidate for candidate in found}


def _calls(ids: Iterable[int]) -> dict[int, Call]:
    wanted = list(ids)
    if not wanted:
        return {}
    found: Rows = rows(TaskExecution).filter(pk__in=wanted).annotate(pause_id=pause_of("queue_name"))
    return {call.pk: call for call in (Call(*row) for row in found.values_list(*Call._fields))}


def _present(ids: Iterable[int]) -> set[int]:
    """The ids of the tries that exist."""
    missing = list(ids)
    return set(rows(TaskExecutionTry).filter(pk__in=missing).values_list("pk", flat=True)) if missing else set()
