"""Puts a seed's topics and subscriptions into the broker.

Apart from `seed`, so that a Django command can build a Seed without loading protobuf.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from google.protobuf import json_format

from . import configs, wire
from .broker import Broker
from .refusals import Refusal
from .seed import Seed, SeedError


def plant(seed: Seed, broker: Broker) -> None:
    """Create what the seed describes; what is there already gets the seed's values for the fields it names."""
    try:
        for fields in seed.full_topics():
            _plant_topic(broker, fields)
        for fields in seed.full_subscriptions():
            _plant_subscription(broker, fields)
    except Refusal as refusal:
        raise SeedError(f"The seed was refused: {refusal.sentence}") from refusal


def _plant_topic(broker: Broker, fields: Mapping[str, Any]) -> None:
    topic = _parsed(fields, wire.Topic())
    if topic.name not in broker.topics:
        broker.create_topic(topic)
    elif paths := configs.TOPIC_MUTABLE & fields.keys():
        broker.update_topic(wire.UpdateTopicRequest(topic=topic, update_mask={"paths": sorted(paths)}))


def _plant_subscription(broker: Broker, fields: Mapping[str, Any]) -> None:
    wanted = _parsed(fields, wire.Subscription())
    if wanted.name not in broker.subscriptions:
        broker.create_subscription(wanted)
    elif paths := configs.SUBSCRIPTION_MUTABLE & fields.keys():
        request = wire.UpdateSubscriptionRequest(subscription=wanted, update_mask={"paths": sorted(paths)})
        subscription = broker.subscriptions[wanted.name]
        broker.reconfigure(subscription, configs.updated_subscription(subscription.config, request))


def _parsed(fields: Mapping[str, Any], message: wire.Message) -> wire.Message:
    try:
        return json_format.ParseDict(dict(fields), message)
    except json_format.ParseError as error:
        raise SeedError(f"The seed's {fields.get('name')!r} is not valid: {str(error).splitlines()[0]}") from error
