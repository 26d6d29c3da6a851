"""The gRPC server: finds the method, reads the request, and turns refusals into statuses."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import grpc.aio
from google.protobuf import any_pb2, empty_pb2
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from . import wire
from .broker import Broker
from .publisher import MAX_REQUEST_BYTES, PublisherService
from .refusals import Refusal, invalid, unimplemented
from .subscriber import SubscriberService

logger = logging.getLogger("i3tasks.emulator")

_OPTIONS = [
    # A publish request at its limit, and room to tell a larger one what is wrong with it.
    ("grpc.max_receive_message_length", 2 * MAX_REQUEST_BYTES),
    ("grpc.max_send_message_length", -1),
    # Without it a second emulator on the same port starts, and each gets some of the connections.
    ("grpc.so_reuseport", 0),
    # Clients ping idle streams more often than gRPC's default lets them.
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
]

SERVICES = {
    "google.pubsub.v1.Publisher": {
        "CreateTopic": wire.Topic,
        "DeleteTopic": wire.DeleteTopicRequest,
        "DetachSubscription": wire.DetachSubscriptionRequest,
        "GetTopic": wire.GetTopicRequest,
        "ListTopicSubscriptions": wire.ListTopicSubscriptionsRequest,
        "ListTopics": wire.ListTopicsRequest,
        "Publish": wire.PublishRequest,
        "UpdateTopic": wire.UpdateTopicRequest,
    },
    "google.pubsub.v1.Subscriber": {
        "Acknowledge": wire.AcknowledgeRequest,
        "CreateSubscription": wire.Subscription,
        "DeleteSubscription": wire.DeleteSubscriptionRequest,
        "GetSubscription": wire.GetSubscriptionRequest,
        "ListSubscriptions": wire.ListSubscriptionsRequest,
        "ModifyAckDeadline": wire.ModifyAckDeadlineRequest,
        "ModifyPushConfig": wire.ModifyPushConfigRequest,
        "Pull": wire.PullRequest,
        "Seek": wire.SeekRequest,
        "StreamingPull": wire.StreamingPullRequest,
        "UpdateSubscription": wire.UpdateSubscriptionRequest,
    },
}


def grpc_server(broker: Broker) -> Any:
    """A grpc.aio server for the broker, not yet started and without a port."""
    server = grpc.aio.server(options=_OPTIONS)
    server.add_generic_rpc_handlers((_Methods(broker),))
    return server


class _Methods(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Every method of every service, the unimplemented ones included."""

    def __init__(self, broker: Broker) -> None:
        empty = empty_pb2.Empty()
        services = {
            "google.pubsub.v1.Publisher": PublisherService(broker, empty),
            "google.pubsub.v1.Subscriber": SubscriberService(broker, empty),
        }
        self._handlers = {
            f"/{service}/{method}": _handler(getattr(services[service], method), request_type)
            for service, methods in SERVICES.items()
            for method, request_type in methods.items()
        }

    def service(self, handler_call_details: Any) -> Any:
        method = handler_call_details.method
        return self._handlers.get(method) or _missing(method)


def _handler(method: Callable[..., Any], request_type: Any) -> Any:
    if method.__name__ == "StreamingPull":
        return grpc.stream_stream_rpc_method_handler(_streaming(method, request_type))
    return grpc.unary_unary_rpc_method_handler(_unary(method, request_type))


def _missing(method: str) -> Any:
    """Streams of any kind are answered alike, since the refusal comes before the first request."""
    name = method.rsplit("/", 1)[-1][:100]
    sentence = f"The emulator does not implement {name}. It has topics, subscriptions and messages."

    async def refuse(_: Any, context: Any) -> None:
        await _abort(context, unimplemented(sentence))

    return grpc.stream_stream_rpc_method_handler(refuse)


def _unary(method: Callable[[Any, Any], Awaitable[Any]], request_type: Any) -> Callable[..., Awaitable[bytes]]:
    async def call(raw: bytes, context: Any) -> bytes:
        answer: bytes = b""
        try:
            answer = (await method(_parsed(request_type, raw), context)).SerializeToString()
        except Refusal as refusal:
            await _abort(context, refusal)
        except Exception as error:
            await _abort(context, _explained(error, method.__name__))
        return answer

    return call


def _streaming(method: Callable[[Any, Any], Awaitable[None]], request_type: Any) -> Callable[..., Awaitable[None]]:
    async def call(raws: AsyncIterator[bytes], context: Any) -> None:
        try:
            await method(_all_parsed(request_type, raws), context)
        except Refusal as refusal:
            await _abort(context, refusal)
        except Exception as error:
            await _abort(context, _explained(error, method.__name__))

    return call


async def _all_parsed(request_type: Any, raws: AsyncIterator[bytes]) -> AsyncIterator[wire.Message]:
    async for raw in raws:
        yield _parsed(request_type, raw)


def _parsed(request_type: Any, raw: bytes) -> wire.Message:
    try:
        return request_type.FromString(raw)
    except DecodeError as error:
        raise invalid("The request is not a valid protobuf message of its type.") from error


def _explained(error: Exception, method: str) -> Refusal:
    """The developer's log gets the trace of a bug, the client a sentence."""
    if isinstance(error, sqlite3.Error):
        return Refusal(grpc.StatusCode.UNAVAILABLE, "The emulator can't write its data, and is about to stop.")
    logger.exception("The emulator failed in %s. This is a bug in i3tasks.", method)
    return Refusal(grpc.StatusCode.INTERNAL, f"The emulator failed in {method}; its log says why.")


async def _abort(context: Any, refusal: Refusal) -> None:
    """End the call with the refusal's status. Raises, so that nothing is sent after it."""
    trailing: tuple[tuple[str, bytes], ...] = ()
    if refusal.reasons:
        info = any_pb2.Any()
        info.Pack(error_details_pb2.ErrorInfo(metadata=refusal.reasons, domain="pubsub.googleapis.com"))
        status = status_pb2.Status(code=refusal.code.value[0], message=refusal.sentence, details=[info])
        trailing = (("grpc-status-details-bin", status.SerializeToString()),)
    await context.abort(refusal.code, refusal.sentence, trailing)
