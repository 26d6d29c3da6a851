"""The messages of google.pubsub.v1 as plain protobuf classes.

google-cloud-pubsub ships them wrapped by proto-plus, whose wrappers cost several times the plain classes' time. Neither
has type stubs, hence the `Any`.
"""

from __future__ import annotations

from typing import Any

from google.pubsub_v1 import types

Message = Any
"""Any of the classes below, as a value."""


def _plain(name: str) -> Any:
    return getattr(types, name).pb()


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
