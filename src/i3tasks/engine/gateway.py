"""The two ways to call the store: batched, for workers and push; inline, in the caller's thread and transaction."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from asgiref.sync import sync_to_async
from django.db import OperationalError

from ..core.clock import current_clock
from ..exceptions import StoreUnavailable
from ..store.database import atomic, is_contention, time_of
from ..store.lock_timeout import attempted
from ..store.operations import Operation
from ..store.requests import Locked
from ..store.writer import Writer

Request = TypeVar("Request")
Answer = TypeVar("Answer")


class Gateway(Protocol):
    """Answers requests. The transaction of a request is committed, or is the caller's own, when the answer comes."""

    async def ask(
        self,
        operation: Operation[Request, Answer],
        request: Request,
        at_commit: Callable[[Answer], None] | None = None,
    ) -> Answer: ...


writer = Writer(current_clock)
"""The process's own, for all of its workers, requests and publishers."""

_inherited: list[Any] = []  # referred to, so that a forked child does not close its parent's connection
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=lambda: _inherited.append(writer._connection))


class InlineGateway:
    """Runs operations in the calling thread, which sees the caller's uncommitted rows."""

    async def ask(
        self,
        operation: Operation[Request, Answer],
        request: Request,
        at_commit: Callable[[Answer], None] | None = None,
    ) -> Answer:
        return await sync_to_async(self._ask)(operation, request, at_commit)

    def _ask(
        self, operation: Operation[Request, Answer], request: Request, at_commit: Callable[[Answer], None] | None
    ) -> Answer:
        try:
            answer = attempted(lambda: self._attempt(operation, request))
        except OperationalError as error:
            if is_contention(error):  # which must not be taken for a refusal of what a body returned
                raise StoreUnavailable(f"Another transaction holds what the call needs. Try again: {error}") from error
            raise
        if at_commit is not None:
            at_commit(answer)  # here: the loop that waits for the answer may be blocked for long
        return answer

    def _attempt(self, operation: Operation[Request, Answer], request: Request) -> Answer:
        with atomic(savepoint=True):  # a savepoint: a refused row must not break the caller's transaction
            answer = operation.run([request], now=time_of(current_clock()), wait=True)[0]
        assert not isinstance(answer, Locked), "it waits for locks"
        return answer
