"""The messages of google.pubsub.v1 as plain protobuf classes.

google-cloud-pubsub wraps them with proto-plus, and the wrappers take several times as long as the plain classes. Both
lack type stubs and are typed as `Any`.
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec, module_from_spec
from typing import Any

_PACKAGE = "google.pubsub_v1"

Message = Any
"""Type of a message: an object of any of the classes below."""


def _defer_clients() -> None:
    """Make the package run its `__init__`, which loads all clients, only when one of its names is used.

    The emulator needs a single module of the package. This halves the time until it is ready, and its memory.
    """
    spec = find_spec(_PACKAGE)
    if _PACKAGE in sys.modules or spec is None or spec.loader is None:
        return
    module, loader = module_from_spec(spec), spec.loader

    def load(name: str) -> Any:
        del module.__getattr__
        loader.exec_module(module)
        return getattr(module, name)

    module.__getattr__ = load  # type: ignore[method-assign]
    sys.modules[_PACKAGE] = module
    parent, _, name = _PACKAGE.rpartition(".")
    setattr(import_module(parent), name, module)


_defer_clients()
_types = import_module(f"{_PACKAGE}.types.pubsub")


def _plain(name: str) -> Any:
    return getattr(_types, name).pb()


AcknowledgeRequest = _plain("AcknowledgeRequest")
DeleteSubscriptionRequest = _plain("DeleteSubscriptionRequest")
DeleteTopicRequest = _plain("DeleteTopicRequest")
DetachSubscriptionRequest = _plain("DetachSubscriptionRequest")
DetachSubscriptionResponse = _plain("DetachSubscriptionResponse")
GetSubscriptionRequest = _plain("GetSubscriptionRequest")
GetTopicRequest = _plain("GetTopicRequest")
ListSubscriptionsRequest = _plain("ListSubscriptionsRequest")
ListSubscriptionsResponse = _plain("ListSubscriptionsResponse")
ListTopicSubscriptionsRequest = _plain("ListTopicSubscriptionsRequest")
ListTopicSubscriptionsResponse = _plain("ListTopicSubscriptionsResponse")
ListTopicsRequest = _plain("ListTopicsRequest")
ListTopicsResponse = _plain("ListTopicsResponse")
ModifyAckDeadlineRequest = _plain("ModifyAckDeadlineRequest")
ModifyPushConfigRequest = _plain("ModifyPushConfigRequest")
PublishRequest = _plain("PublishRequest")
PublishResponse = _plain("PublishResponse")
PubsubMessage = _plain("PubsubMessage")
PullRequest = _plain("PullRequest")
PullResponse = _plain("PullResponse")
ReceivedMessage = _plain("ReceivedMessage")
SeekRequest = _plain("SeekRequest")
SeekResponse = _plain("SeekResponse")
StreamingPullRequest = _plain("StreamingPullRequest")
StreamingPullResponse = _plain("StreamingPullResponse")
Subscription = _plain("Subscription")
Topic = _plain("Topic")
UpdateSubscriptionRequest = _plain("UpdateSubscriptionRequest")
UpdateTopicRequest = _plain("UpdateTopicRequest")
