"""The service google.pubsub.v1.Subscriber. Each method is the RPC of the same name."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from . import configs, wire
from .messages import Consumer, LeasedMessage
from .names import project_prefix, subscription_name
from .paging import page
from .publisher import on_disk
from .state import BrokerState
from .status_errors import invalid, unimplemented, wrong_state
from .streaming import Stream, add_received
from .subscription import Failures, Subscription

MAX_PULL = 1_000
PULL_SECONDS = 20.0
"""Time that a Pull waits for a first message, unless its deadline comes earlier."""
_MARGIN = 0.5


class SubscriberService:
    """The RPCs that manage subscriptions and receive from them."""

    def __init__(self, broker: BrokerState, empty: Any) -> None:
        self._broker = broker
        self._empty = empty

    def _find(self, name: str) -> Subscription:
        return self._broker.subscription(subscription_name(name))

    def _shown(self, subscription: Subscription) -> wire.Message:
        """Give the configuration with its output-only field, which comes from the topic."""
        topic = self._broker.topics.get(subscription.config.topic)
        if topic is None or not topic.retention:
            return subscription.config
        shown = wire.Subscription()
        shown.CopyFrom(subscription.config)
        shown.topic_message_retention_duration.CopyFrom(topic.config.message_retention_duration)
        return shown

    async def CreateSubscription(self, request: wire.Message, context: Any) -> wire.Message:
        subscription, committed = self._broker.create_subscription(request)
        await on_disk(committed)
        return self._shown(subscription)

    async def GetSubscription(self, request: wire.Message, context: Any) -> wire.Message:
        return self._shown(self._find(request.subscription))

    async def UpdateSubscription(self, request: wire.Message, context: Any) -> wire.Message:
        subscription = self._find(request.subscription.name)
        config = configs.updated_subscription(subscription.config, request)
        await on_disk(self._broker.reconfigure(subscription, config))
        return self._shown(subscription)

    async def ListSubscriptions(self, request: wire.Message, context: Any) -> wire.Message:
        prefix = project_prefix(request.project)
        names = (name for name in self._broker.subscriptions if name.startswith(prefix))
        chosen, token = page(names, request.page_size, request.page_token)
        found = [self._shown(self._broker.subscriptions[name]) for name in chosen]
        return wire.ListSubscriptionsResponse(subscriptions=found, next_page_token=token)

    async def DeleteSubscription(self, request: wire.Message, context: Any) -> wire.Message:
        await on_disk(self._broker.delete_subscription(subscription_name(request.subscription)))
        return self._empty

    async def ModifyPushConfig(self, request: wire.Message, context: Any) -> wire.Message:
        subscription = self._find(request.subscription)
        config = configs.with_push_config(subscription.config, request.push_config)
        await on_disk(self._broker.reconfigure(subscription, config))
        return self._empty

    async def Seek(self, request: wire.Message, context: Any) -> wire.Message:
        subscription = self._find(request.subscription)
        subscription.check()
        if request.WhichOneof("target") == "snapshot":
            raise unimplemented("The emulator has no snapshots. Seek to a time.")
        if request.WhichOneof("target") != "time":
            raise invalid("Seek needs a time or a snapshot.")
        await on_disk(self._broker.seek(subscription, request.time.seconds + request.time.nanos / 1e9))
        return wire.SeekResponse()

    async def Acknowledge(self, request: wire.Message, context: Any) -> wire.Message:
        _need(request.ack_ids)
        failures, committed = self._find(request.subscription).acknowledge(request.ack_ids)
        await on_disk(committed)
        _refuse(failures)
        return self._empty

    async def ModifyAckDeadline(self, request: wire.Message, context: Any) -> wire.Message:
        _need(request.ack_ids)
        seconds = [request.ack_deadline_seconds] * len(request.ack_ids)
        failures, _ = self._find(request.subscription).modify(request.ack_ids, seconds)
        _refuse(failures)
        return self._empty

    async def Pull(self, request: wire.Message, context: Any) -> wire.Message:
        subscription = self._find(request.subscription)
        if request.max_messages <= 0:
            raise invalid(f"Invalid max_messages: {request.max_messages} is not positive.")
        _refuse_push(subscription)
        seconds = 0.0 if request.return_immediately else _patience(context)
        deliveries = await _pulled(subscription, min(request.max_messages, MAX_PULL), seconds)
        response = wire.PullResponse()
        for delivery in deliveries:
            add_received(response, subscription, delivery)
        return response

    async def StreamingPull(self, requests: AsyncIterator[wire.Message], context: Any) -> None:
        first = await anext(requests, None)
        if first is None:
            raise invalid("The stream ended before its first request.")
        subscription = self._find(first.subscription)
        _refuse_push(subscription)
        await Stream(subscription, first, requests, context).run()


async def _pulled(subscription: Subscription, limit: int, seconds: float) -> list[LeasedMessage]:
    """Take the first messages that become available within `seconds`. Each pull is a consumer of its own."""
    consumer = Consumer()
    try:
        async with asyncio.timeout(seconds):
            while not (deliveries := subscription.take(consumer, limit)):
                await subscription.changed()
            return deliveries
    except TimeoutError:
        return []


def _patience(context: Any) -> float:
    remaining = context.time_remaining()
    return PULL_SECONDS if remaining is None else max(0.0, min(PULL_SECONDS, remaining - _MARGIN))


def _need(ack_ids: Any) -> None:
    if not ack_ids:
        raise invalid("No ack ids specified.")


def _refuse(failures: Failures) -> None:
    if failures:
        raise wrong_state(
            "Some acknowledgement ids in the request had no effect: too late, used before, or out of order.",
            {ack_id: outcome.value for ack_id, outcome in failures.items()},
        )


def _refuse_push(subscription: Subscription) -> None:
    if configs.is_push(subscription.config):
        raise wrong_state(f"Subscription {subscription.name} is pushed to its endpoint; it can't be pulled from.")
