"""Creates a seed's topics and subscriptions in the emulator.

This module stands apart from `seed`, so that a Django command can build a Seed without loading protobuf.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from google.protobuf import json_format

from . import configs, wire
from .seed import Seed, SeedError
from .state import BrokerState
from .status_errors import StatusError
from .subscription import Committed


def plant(seed: Seed, broker: BrokerState) -> list[asyncio.Future[None]]:
    """Create the seed's topics and subscriptions. Existing ones get the seed's values for the fields that it names.

    Returns futures that are done when all changes are on disk.
    """
    try:
        topics = [_plant_topic(broker, fields) for fields in seed.full_topics()]
        subscriptions = [_plant_subscription(broker, fields) for fields in seed.full_subscriptions()]
    except StatusError as refusal:
        raise SeedError(f"The seed was refused: {refusal.sentence}") from refusal
    return [committed for committed in topics + subscriptions if committed is not None]


def _plant_topic(broker: BrokerState, fields: Mapping[str, Any]) -> Committed:
    topic = _parsed(fields, wire.Topic())
    if topic.name not in broker.topics:
        return broker.create_topic(topic)[1]
    if paths := configs.TOPIC_MUTABLE & fields.keys():
        return broker.update_topic(wire.UpdateTopicRequest(topic=topic, update_mask={"paths": sorted(paths)}))[1]
    return None


def _plant_subscription(broker: BrokerState, fields: Mapping[str, Any]) -> Committed:
    wanted = _parsed(fields, wire.Subscription())
    if wanted.name not in broker.subscriptions:
        return broker.create_subscription(wanted)[1]
    if paths := configs.SUBSCRIPTION_MUTABLE & fields.keys():
        request = wire.UpdateSubscriptionRequest(subscription=wanted, update_mask={"paths": sorted(paths)})
        subscription = broker.subscriptions[wanted.name]
        return broker.reconfigure(subscription, configs.updated_subscription(subscription.config, request))
    return None


def _parsed(fields: Mapping[str, Any], message: wire.Message) -> wire.Message:
    try:
        return json_format.ParseDict(dict(fields), message)
    except json_format.ParseError as error:
        raise SeedError(f"The seed's {fields.get('name')!r} is not valid: {str(error).splitlines()[0]}") from error
