"""The store functions that the writer runs, and the rules for a locked row and for a database without an answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from .claims import ask_plain, claim, claim_rest
from .database import Instant
from .dispatching import confirm_plain, confirm_published, deny_published, put_back, withhold
from .fallback import WaitingRequest, take_waiting
from .leases import renew
from .pauses import read_pauses
from .postgres.settling import settle_plain
from .postgres.statements import Question
from .requests import Claimed, ClaimRequest, Locked, Refusal, Renewed, RenewRequest, Settled, Settlement, Stale, TryRef
from .settle import settle, settle_rest
from .stacks import TakenStack, note_stacks
from .workers import Heartbeat, note_workers

Request = TypeVar("Request")
Answer = TypeVar("Answer")
Request_contra = TypeVar("Request_contra", contravariant=True)
Answer_co = TypeVar("Answer_co", covariant=True)


class StoreFunction(Protocol[Request_contra, Answer_co]):
    """The form of `claim`, `settle`, `renew` and `confirm_published`."""

    def __call__(
        self, requests: Sequence[Request_contra], /, *, now: Instant, wait: bool = False
    ) -> Sequence[Answer_co | Locked]: ...


class PlainForm(Protocol[Request_contra, Answer_co]):
    """Gives a question whose answer has the answers of the plain requests, by the ids of their tries."""

    def __call__(self, requests: Sequence[Request_contra], now: Instant, /) -> Question[Any] | None: ...


@dataclass(frozen=True, slots=True, eq=False)  # the writer looks it up again and again
class Operation(Generic[Request, Answer]):
    """A store function that answers many requests in one transaction."""

    run: StoreFunction[Request, Answer]
    survives_outage: bool
    when_locked: Any = None
    """The answer when a row stays locked. None: the request waits for as long as it takes."""
    is_gathered: bool = False
    """Whether posted requests wait a little, to be carried out together with later ones."""
    plain: PlainForm[Request, Answer] | None = None
    """The question to PostgreSQL that carries out the plain ones of the requests."""
    rest: StoreFunction[Request, Answer] | None = None
    """Carries out requests that the question has left, which `run` would begin by asking again."""


CLAIM: Operation[ClaimRequest, Claimed | Refusal] = Operation(
    claim, survives_outage=False, when_locked=Refusal.LOCKED, plain=ask_plain, rest=claim_rest
)
SETTLE: Operation[Settlement, Settled | Stale] = Operation(
    settle, survives_outage=True, plain=settle_plain, rest=settle_rest
)
RENEW: Operation[RenewRequest, Renewed] = Operation(renew, survives_outage=False)
CONFIRM: Operation[TryRef, None] = Operation(
    confirm_published, survives_outage=False, is_gathered=True, plain=confirm_plain
)
DENY: Operation[TryRef, None] = Operation(deny_published, survives_outage=False)
PUT_BACK: Operation[TryRef, None] = Operation(put_back, survives_outage=False)
WITHHOLD: Operation[TryRef, None] = Operation(withhold, survives_outage=False, is_gathered=True)
TAKE_WAITING: Operation[WaitingRequest, list[TryRef]] = Operation(take_waiting, survives_outage=False)
NOTE_WORKER: Operation[Heartbeat, None] = Operation(note_workers, survives_outage=False)
NOTE_STACK: Operation[TakenStack, None] = Operation(note_stacks, survives_outage=False)
READ_PAUSES: Operation[None, None] = Operation(read_pauses, survives_outage=False, is_gathered=True)

IN_ORDER: tuple[Operation[Any, Any], ...] = (
    *(SETTLE, RENEW, CONFIRM, DENY, PUT_BACK, WITHHOLD, CLAIM, TAKE_WAITING, NOTE_WORKER),
    NOTE_STACK,
    READ_PAUSES,
)
"""The order in which a transaction carries them out."""
