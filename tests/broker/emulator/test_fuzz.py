"""Whatever is sent, the emulator answers with a status and a sentence, never with a trace, and goes on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from i3tasks.emulator import EmulatorProcess, Seed, wire
from i3tasks.emulator.server import SERVICES
from tests.support.exploring import examples

SECONDS = 20
TOPIC, SUBSCRIPTION = "projects/demo/topics/topic", "projects/demo/subscriptions/sub"
SEED = Seed(
    topics=[TOPIC],
    subscriptions=[
        {"name": SUBSCRIPTION, "topic": TOPIC},
        {"name": "projects/demo/subscriptions/once", "topic": TOPIC, "enable_exactly_once_delivery": True},
    ],
)
METHODS = {
    (service, method): request_type for service, methods in SERVICES.items() for method, request_type in methods.items()
}
REFUSALS = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.ALREADY_EXISTS,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.UNIMPLEMENTED,
}
USUAL = {
    "name": [TOPIC, "projects/demo/topics/other", SUBSCRIPTION, "projects/demo/subscriptions/other"],
    "project": ["projects/demo"],
    "subscription": [SUBSCRIPTION, "projects/demo/subscriptions/once", "projects/demo/subscriptions/other"],
    "topic": [TOPIC],
}
"""Values that get a request past its first checks."""

FUZZ = settings(max_examples=examples(200), deadline=None, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module")
def channel() -> Iterator[grpc.Channel]:
    with EmulatorProcess(seed=SEED) as emulator, grpc.insecure_channel(emulator.host_port) as channel:
        yield channel


def _send(channel: Any, service: str, method: str, raw: bytes) -> grpc.StatusCode:
    """The status of the answer, having looked at its sentence."""
    path = f"/{service}/{method}"
    try:
        if method == "StreamingPull":
            for _ in channel.stream_stream(path)(iter([raw]), timeout=SECONDS):
                pass
        else:
            channel.unary_unary(path)(raw, timeout=SECONDS)
    except grpc.RpcError as error:
        _check_sentence(error.details())
        return error.code()
    return grpc.StatusCode.OK


def _check_sentence(sentence: str) -> None:
    assert sentence
    for leak in ("Traceback", "File ", ".py", "Error(", "Exception"):
        assert leak not in sentence
    assert len(sentence) < 2_000


def _is_alive(channel: Any) -> bool:
    raw = wire.GetTopicRequest(topic=TOPIC).SerializeToString()
    return _send(channel, "google.pubsub.v1.Publisher", "GetTopic", raw) is grpc.StatusCode.OK


DISRUPTIVE = {"Pull", "StreamingPull", "DeleteTopic", "DeleteSubscription", "DetachSubscription"}
"""They wait, or take away what the other cases need."""

methods = st.sampled_from(sorted(METHODS))


@FUZZ
@given(method=methods, raw=st.binary(max_size=200))
def test_bytes_of_any_kind(channel: Any, method: tuple[str, str], raw: bytes) -> None:
    assert _send(channel, *method, raw) in REFUSALS | {grpc.StatusCode.OK}
    assert _is_alive(channel)


_texts = st.one_of(
    st.sampled_from(["", TOPIC, SUBSCRIPTION, "projects/demo/subscriptions/once", "projects/demo", "_deleted-topic_"]),
    st.sampled_from(["1-1-1", "0-0-0", "f" * 16 + "-1-1", "-1-1-1", "x", "http://[::1", "https://", "AAAA", "====="]),
    st.sampled_from(
        ["labels", "ack_deadline_seconds", "push_config", "push_config.attributes", "expiration_policy.ttl"]
    ),
    st.text(max_size=40),
    st.text("abc/projects-topics~%+ \n\x00", max_size=300),
)
_numbers = st.sampled_from([0, 1, -1, 10, 600, 601, 2**31 - 1, -(2**31)])


def _filled(data: st.DataObject, message_type: Any, depth: int = 3) -> Any:
    """A message with some fields missing and odd values in the others."""
    message = message_type()
    for field in message.DESCRIPTOR.fields:
        if data.draw(st.integers(0, 3)) == 0:
            _fill(data, message, field, depth)
    for name, usual in USUAL.items():
        field = message.DESCRIPTOR.fields_by_name.get(name)
        if field is not None and field.cpp_type == field.CPPTYPE_STRING and data.draw(st.integers(0, 3)) > 0:
            setattr(message, name, data.draw(st.sampled_from(usual)))
    return message


def _fill(data: st.DataObject, message: Any, field: Any, depth: int) -> None:
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        values = getattr(message, field.name)
        if field.message_type.fields_by_name["value"].cpp_type == field.CPPTYPE_STRING:
            values.update(data.draw(st.dictionaries(_texts, _texts, max_size=2)))
    elif field.message_type is not None:
        if depth:
            _fill_message(data, message, field, depth)
    elif field.is_repeated:
        getattr(message, field.name).extend(data.draw(st.lists(_scalar(field), max_size=3)))
    else:
        setattr(message, field.name, data.draw(_scalar(field)))


def _fill_message(data: st.DataObject, message: Any, field: Any, depth: int) -> None:
    inner = _filled(data, field.message_type._concrete_class, depth - 1)
    if field.is_repeated:
        getattr(message, field.name).append(inner)
    else:
        getattr(message, field.name).CopyFrom(inner)


def _scalar(field: Any) -> st.SearchStrategy[Any]:
    kinds = {
        field.CPPTYPE_STRING: st.binary(max_size=20) if field.type == field.TYPE_BYTES else _texts,
        field.CPPTYPE_BOOL: st.booleans(),
        field.CPPTYPE_ENUM: st.sampled_from([0, 1]),
        field.CPPTYPE_DOUBLE: st.just(1.5),
        field.CPPTYPE_FLOAT: st.just(1.5),
    }
    unsigned = field.cpp_type in (field.CPPTYPE_UINT32, field.CPPTYPE_UINT64)
    return kinds.get(field.cpp_type, _numbers.map(abs) if unsigned else _numbers)


@FUZZ
@given(method=methods.filter(lambda method: method[1] not in DISRUPTIVE), data=st.data())
def test_requests_with_missing_and_odd_fields(channel: Any, method: tuple[str, str], data: st.DataObject) -> None:
    request = _filled(data, METHODS[method])
    assert _send(channel, *method, request.SerializeToString()) in REFUSALS | {grpc.StatusCode.OK}
    assert _is_alive(channel)


@FUZZ
@given(ack_ids=st.lists(_texts, max_size=5), once=st.booleans(), seconds=_numbers)
def test_garbage_acks(channel: Any, ack_ids: list[str], once: bool, seconds: int) -> None:
    name = "projects/demo/subscriptions/once" if once else SUBSCRIPTION
    service = "google.pubsub.v1.Subscriber"
    acknowledge = wire.AcknowledgeRequest(subscription=name, ack_ids=ack_ids)
    modify = wire.ModifyAckDeadlineRequest(subscription=name, ack_ids=ack_ids, ack_deadline_seconds=seconds)
    allowed = REFUSALS | {grpc.StatusCode.OK}
    assert _send(channel, service, "Acknowledge", acknowledge.SerializeToString()) in allowed
    assert _send(channel, service, "ModifyAckDeadline", modify.SerializeToString()) in allowed
    assert _is_alive(channel)


@pytest.mark.parametrize("service", ["Publisher", "Subscriber", "SchemaService", "Nonsense"])
@pytest.mark.parametrize("method", ["CreateSnapshot", "ListTopicSnapshots", "CreateSchema", "Nonsense"])
def test_methods_that_are_not_there(channel: Any, service: str, method: str) -> None:
    assert _send(channel, f"google.pubsub.v1.{service}", method, b"") is grpc.StatusCode.UNIMPLEMENTED


@FUZZ
@given(paths=st.lists(_texts, max_size=3), data=st.data())
def test_updates_of_any_field(channel: Any, paths: list[str], data: st.DataObject) -> None:
    subscription = _filled(data, wire.Subscription)
    subscription.name = SUBSCRIPTION
    request = wire.UpdateSubscriptionRequest(subscription=subscription, update_mask={"paths": paths})
    status = _send(channel, "google.pubsub.v1.Subscriber", "UpdateSubscription", request.SerializeToString())
    assert status in REFUSALS | {grpc.StatusCode.OK}
    assert _is_alive(channel)
