"""Where Google's emulator (0.8.20) is known to differ from the documented service.

The cases named here run against it too, and must fail there: when one starts to pass, its entry goes. Those of
SOMETIMES hang on its timing, and may pass. The table in
docs/reference/emulator.md shows the same sentences, which `test_differences.py` checks.
"""

DIFFERENCES = {
    "filters": "Ignores filters: every message is delivered",
    "filter syntax": "Accepts filters that are not valid",
    "order after a nack": "After a nack, delivers messages of the same ordering key out of order",
    "exactly-once": "Confirms acks of expired and used ack ids on exactly-once subscriptions; streams confirm nothing",
    "flow control": "Ignores max_outstanding_messages and max_outstanding_bytes",
    "abandoned streams": "Keeps what a closed stream held for a minute and more, whatever its deadline",
    "retry policy": "Ignores the retry policy: a nacked message comes back at once",
    "dead letters": "Does not forward a message to the dead letter topic after the last delivery attempt",
    "push attempts": "Pushes without deliveryAttempt where there is a dead letter policy",
    "push tokens": "Pushes without an OIDC token",
    "attributes as headers": "Unwrapped push with metadata never brings a message whose attributes can't be headers",
    "pulling from push": "Lets push subscriptions be pulled from",
    "detach": "Does not implement DetachSubscription",
    "topic retention": "Does not keep messages for the topic's retention, so that a new subscription can't seek back",
    "topic labels": "Can't update the labels of a topic",
    "default expiration": "Gives a new subscription no expiration policy",
    "state": "Leaves the state of a subscription unset",
    "limits": "Has no limits on the size, the attributes and the ordering key of a message",
    "short ack deadlines": "Takes ack deadlines of less than 10 seconds",
    "long deadlines": "Takes ModifyAckDeadline of more than 600 seconds",
    "negative max_messages": "Takes a negative max_messages in Pull",
    "empty names": "Creates a subscription with an empty name",
    "stream requests": "Lets later requests of a stream change its flow control limits",
    "unimplemented": "Answers for snapshots as if they were there",
}

SOMETIMES = {"abandoned streams", "order after a nack"}
