"""The executor's report on how a delivery was handled."""

from __future__ import annotations

from enum import Enum

from ..core.envelope import Envelope
from ..core.outcome import Outcome
from ..core.record import record
from ..store.requests import Claimed, Refusal, Settled


class Verdict(Enum):
    """The answer to Pub/Sub."""

    ACK = "ack"
    NACK = "nack"


class NotRun(Enum):
    """The reasons why a delivery was not run, besides those of the store's Refusal."""

    UNREADABLE = "unreadable"  # the message is no envelope of i3tasks
    STOPPING = "stopping"  # this process is ending
    NO_ANSWER = "no answer from the database"
    STALE = "stale"  # the lease was lost: the body's outcome is not recorded


@record
class Report:
    """Describes how a delivery was handled.

    `reason` and `detail` say why nothing ran; `outcome` is the outcome of a run. `claimed` and `settled` are the
    store's answers about the run, so that callers need no further query.
    """

    verdict: Verdict
    reason: Refusal | NotRun | None = None
    detail: str = ""
    envelope: Envelope | None = None
    outcome: Outcome | None = None
    error: BaseException | None = None
    claimed: Claimed | None = None
    settled: Settled | None = None

    @property
    def sentence(self) -> str:
        """The reason why nothing ran, as text for people."""
        said = self.reason.value if self.reason is not None else ""
        return f"{said}: {self.detail}" if self.detail else said
