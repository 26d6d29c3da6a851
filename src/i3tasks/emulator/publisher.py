"""The service google.pubsub.v1.Publisher. Each method is the RPC of the same name."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from . import wire
from .names import project_prefix, topic_name
from .paging import page
from .state import BrokerState
from .status_errors import invalid
from .subscription import Committed

MAX_REQUEST_BYTES = 10_000_000
MAX_MESSAGES = 1_000
MAX_ATTRIBUTES = 100
MAX_KEY_BYTES = 256
MAX_VALUE_BYTES = 1_024
MAX_ORDERING_KEY_BYTES = 1_024

Empty = Any


class PublisherService:
    """The RPCs that manage topics and publish to them."""

    def __init__(self, broker: BrokerState, empty: Empty) -> None:
        self._broker = broker
        self._empty = empty

    async def CreateTopic(self, request: wire.Message, context: Any) -> wire.Message:
        topic, committed = self._broker.create_topic(request)
        await on_disk(committed)
        return topic.config

    async def GetTopic(self, request: wire.Message, context: Any) -> wire.Message:
        return self._broker.topic(topic_name(request.topic)).config

    async def UpdateTopic(self, request: wire.Message, context: Any) -> wire.Message:
        topic, committed = self._broker.update_topic(request)
        await on_disk(committed)
        return topic.config

    async def ListTopics(self, request: wire.Message, context: Any) -> wire.Message:
        prefix = project_prefix(request.project)
        names = (name for name in self._broker.topics if name.startswith(prefix))
        chosen, token = page(names, request.page_size, request.page_token)
        topics = [self._broker.topics[name].config for name in chosen]
        return wire.ListTopicsResponse(topics=topics, next_page_token=token)

    async def ListTopicSubscriptions(self, request: wire.Message, context: Any) -> wire.Message:
        topic = self._broker.topic(topic_name(request.topic))
        chosen, token = page(topic.subscriptions, request.page_size, request.page_token)
        return wire.ListTopicSubscriptionsResponse(subscriptions=chosen, next_page_token=token)

    async def DeleteTopic(self, request: wire.Message, context: Any) -> wire.Message:
        await on_disk(self._broker.delete_topic(topic_name(request.topic)))
        return self._empty

    async def DetachSubscription(self, request: wire.Message, context: Any) -> wire.Message:
        await on_disk(self._broker.detach(self._broker.subscription(request.subscription)))
        return wire.DetachSubscriptionResponse()

    async def Publish(self, request: wire.Message, context: Any) -> wire.Message:
        topic = self._broker.topic(topic_name(request.topic))
        _check_size(request)
        _check_messages(request.messages)
        ids, committed = self._broker.publish(topic, request.messages)
        await on_disk(committed)
        return wire.PublishResponse(message_ids=map(str, ids))


async def on_disk(committed: Committed) -> None:
    """Wait for a commit. Cancelling the caller does not cancel the commit."""
    if committed is not None:
        await asyncio.shield(committed)


def _check_size(request: wire.Message) -> None:
    if not 0 < len(request.messages) <= MAX_MESSAGES:
        raise invalid(f"A publish request must have 1 to {MAX_MESSAGES} messages, not {len(request.messages)}.")
    if request.ByteSize() > MAX_REQUEST_BYTES:
        raise invalid(f"The request has {request.ByteSize()} bytes; the limit is {MAX_REQUEST_BYTES}.")


def _check_messages(messages: Iterable[wire.Message]) -> None:
    for message in messages:
        if not message.data and not message.attributes:
            raise invalid("One or more messages are empty: each needs data or at least one attribute.")
        if len(message.attributes) > MAX_ATTRIBUTES:
            raise invalid(f"A message has {len(message.attributes)} attributes; the limit is {MAX_ATTRIBUTES}.")
        for key, value in message.attributes.items():
            _check_attribute(key, value)
        if len(message.ordering_key.encode()) > MAX_ORDERING_KEY_BYTES:
            raise invalid(f"An ordering key is longer than {MAX_ORDERING_KEY_BYTES} bytes.")


def _check_attribute(key: str, value: str) -> None:
    if not 0 < len(key.encode()) <= MAX_KEY_BYTES:
        raise invalid(f"Attribute keys must have 1 to {MAX_KEY_BYTES} bytes: {key[:50]!r}.")
    if len(value.encode()) > MAX_VALUE_BYTES:
        raise invalid(f"The value of attribute {key[:50]!r} is longer than {MAX_VALUE_BYTES} bytes.")
