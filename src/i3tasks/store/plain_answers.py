"""The plain requests of a batch, carried out in one round trip to PostgreSQL that is a transaction by itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .database import Instant
from .operations import IN_ORDER, Operation
from .postgres.statements import are_known
from .postgres.together import ask_together, can_ask_together

Asked = Mapping[Operation[Any, Any], Mapping[int, Any]]
"""The answers by the ids of the tries, for each operation that was asked. What has none is left, unchanged."""


def answer_plain(requests: Mapping[Operation[Any, Any], Sequence[Any]], now: Instant) -> Asked:
    """Carry out what needs no more than a statement for all. Raises DatabaseError, and has changed nothing then."""
    if not (are_known(now) and can_ask_together()):
        return {}
    questions = {
        operation: question
        for operation in IN_ORDER
        if operation.plain is not None and operation in requests
        if (question := operation.plain(requests[operation], now)) is not None
    }
    if not questions:
        return {}
    count = sum(len(requests[operation]) for operation in questions)
    return dict(zip(questions, ask_together([*questions.values()], count), strict=True))
