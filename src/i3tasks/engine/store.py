"""The two ways to reach the store: batched, for workers and push; inline, in the caller's thread and transaction."""

from __future__ import annotations

from typing import Protocol, TypeVar

from asgiref.sync import sync_to_async
from django.db import transaction

from ..store.database import alias
from ..store.refs import Locked
from ..store.writer import Operation

Request = TypeVar("Request")
Answer = TypeVar("Answer")


class Store(Protocol):
    """Answers requests, each in a transaction that is committed (or part of the caller's) when the answer comes."""

    async def ask(self, operation: Operation[Request, Answer], request: Request) -> Answer: ...


class InlineStore:
    """Runs operations in the calling thread, where the caller's uncommitted rows can be seen."""

    async def ask(self, operation: Operation[Request, Answer], request: Request) -> Answer:
        return await sync_to_async(self._ask)(operation, request)

    def _ask(self, operation: Operation[Request, Answer], request: Request) -> Answer:
        with transaction.atomic(using=alias()):  # a savepoint: a refused row must not poison the caller's transaction
            answer = operation.run([request], wait=True)[0]
        assert not isinstance(answer, Locked), "it waits for locks"
        return answer
