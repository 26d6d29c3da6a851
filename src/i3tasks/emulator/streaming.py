"""The RPC StreamingPull: one stream, from its first request until either side closes it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Any

from . import wire
from .messages import AckOutcome, Consumer, LeasedMessage
from .publisher import on_disk
from .status_errors import invalid
from .subscription import Failures, Subscription

BATCH = 500
"""Largest number of messages in one response. Streams take turns after each response."""

WRITE_SECONDS = 5.0
"""Time that a client has to accept a response when its stream is about to end."""


def add_received(response: wire.Message, subscription: Subscription, delivery: LeasedMessage) -> None:
    """Append the delivery to a response's received_messages."""
    attempt = delivery.attempt if subscription.counts_attempts else 0
    received = response.received_messages.add(ack_id=subscription.ack_id(delivery), delivery_attempt=attempt)
    received.message.MergeFromString(delivery.message.payload)


class Stream:
    """Sends a subscription's messages within the client's limits, and takes acks and new deadlines at the same time."""

    def __init__(
        self, subscription: Subscription, first: wire.Message, requests: AsyncIterator[wire.Message], context: Any
    ) -> None:
        self._subscription = subscription
        self._first = first
        self._requests = requests
        self._context = context
        self._consumer = Consumer(first.max_outstanding_messages, first.max_outstanding_bytes)
        self._deadline = _deadline(first.stream_ack_deadline_seconds)
        self._answers = getattr(first, "protocol_version", 0) > 0  # old releases of the client library lack the field
        self._write_lock = asyncio.Lock()
        self._writing: asyncio.Future[Any] | None = None

    async def run(self) -> None:
        """Serve the stream until the client closes its side. Raises a StatusError if the stream must be aborted."""
        self._subscription.streams += 1
        reader = asyncio.create_task(self._read())
        sender = asyncio.create_task(self._send())
        try:
            await asyncio.wait((reader, sender), return_when=asyncio.FIRST_COMPLETED)
            for task in (reader, sender):
                if task.done():
                    task.result()
        finally:
            self._subscription.streams -= 1
            reader.cancel()
            sender.cancel()
            await asyncio.gather(reader, sender, return_exceptions=True)
            await self._finish_writing()

    # -- from the server to the client

    async def _send(self) -> None:
        await self._write(self._response())
        while True:
            deliveries = self._subscription.take(self._consumer, self._subscription.share(BATCH), self._deadline)
            if not deliveries:
                await self._subscription.changed()
                continue
            response = self._response()
            for delivery in deliveries:
                add_received(response, self._subscription, delivery)
            await self._write(response)

    def _response(self) -> wire.Message:
        response = wire.StreamingPullResponse()
        config = self._subscription.config
        response.subscription_properties.exactly_once_delivery_enabled = config.enable_exactly_once_delivery
        response.subscription_properties.message_ordering_enabled = config.enable_message_ordering
        return response

    async def _write(self, response: wire.Message) -> None:
        async with self._write_lock:
            writing = asyncio.ensure_future(self._context.write(response.SerializeToString()))
            self._writing = writing
            await asyncio.shield(writing)

    async def _finish_writing(self) -> None:
        """Wait for a response that is being sent. gRPC loses the final status if it is sent at the same time."""
        writing = self._writing
        if writing is not None:
            await asyncio.wait((writing,), timeout=WRITE_SECONDS)
            if writing.done() and not writing.cancelled():
                writing.exception()  # read, so that asyncio does not log it: the client may be gone

    # -- from the client to the server

    async def _read(self) -> None:
        await self._answer(self._first)
        async for request in self._requests:
            _check_later(request)
            if request.stream_ack_deadline_seconds:
                self._deadline = _deadline(request.stream_ack_deadline_seconds)
            if not request.ack_ids and not request.modify_deadline_ack_ids and self._answers:
                await self._write(self._response())
            await self._answer(request)

    async def _answer(self, request: wire.Message) -> None:
        """Apply the acks and deadlines in a request, and confirm them if the subscription is exactly-once."""
        if len(request.modify_deadline_ack_ids) != len(request.modify_deadline_seconds):
            raise invalid("modify_deadline_ack_ids and modify_deadline_seconds must have the same length.")
        response = self._response()
        if request.modify_deadline_ack_ids:
            moved = request.modify_deadline_ack_ids
            failures, _ = self._subscription.modify(moved, request.modify_deadline_seconds)
            _confirm(response.modify_ack_deadline_confirmation, moved, failures)
        if request.ack_ids:
            failures, committed = self._subscription.acknowledge(request.ack_ids)
            await on_disk(committed)
            _confirm(response.acknowledge_confirmation, request.ack_ids, failures)
        answered = request.ack_ids or request.modify_deadline_ack_ids
        if answered and self._subscription.config.enable_exactly_once_delivery:
            await self._write(response)


def _confirm(confirmation: wire.Message, ack_ids: Iterable[str], failures: Failures) -> None:
    for ack_id in ack_ids:
        if ack_id not in failures:
            confirmation.ack_ids.append(ack_id)
        elif failures[ack_id] is AckOutcome.UNORDERED:
            confirmation.unordered_ack_ids.append(ack_id)
        else:
            confirmation.invalid_ack_ids.append(ack_id)


def _deadline(seconds: int) -> float:
    if not 10 <= seconds <= 600:
        raise invalid(f"Invalid stream_ack_deadline_seconds: {seconds} is not between 10 and 600.")
    return float(seconds)


def _check_later(request: wire.Message) -> None:
    for field in ("subscription", "max_outstanding_messages", "max_outstanding_bytes", "protocol_version"):
        if getattr(request, field, 0):
            raise invalid(f"{field} can be set on the first request of a stream only.")
