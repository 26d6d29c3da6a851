"""The gRPC server: finds the method, reads the request, and turns refusals into statuses."""

from __future__ import annotations

import json
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
from .publisher import MAX_REQUEST_BYTES, PublisherService
from .state import BrokerState
from .status_errors import StatusError, invalid, unimplemented
from .subscriber import SubscriberService

logger = logging.getLogger("i3tasks.emulator")

_OPTIONS = [
    # Twice the limit of a publish request, so that a request over the limit gets an error that explains it.
    ("grpc.max_receive_message_length", 2 * MAX_REQUEST_BYTES),
    ("grpc.max_send_message_length", -1),
    # With SO_REUSEPORT a second emulator could start on the same port, and each would get some of the connections.
    ("grpc.so_reuseport", 0),
    # Clients ping idle streams more often than gRPC allows by default.
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

CERTIFICATES = "/i3tasks.Emulator/Certificates"
"""A method that Pub/Sub does not have: it gives its certificates to a site that knows no URL for them."""


def grpc_server(broker: BrokerState) -> Any:
    """Make a grpc.aio server for the emulator's state, not yet started and without a port."""
    server = grpc.aio.server(options=_OPTIONS)
    server.add_generic_rpc_handlers((_Methods(broker),))
    return server


class _Methods(grpc.GenericRpcHandler):  # type: ignore[misc]
    """The methods of all services, including the unimplemented ones."""

    def __init__(self, broker: BrokerState) -> None:
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
        self._handlers[CERTIFICATES] = _certificates(broker)

    def service(self, handler_call_details: Any) -> Any:
        method = handler_call_details.method
        return self._handlers.get(method) or _missing(method)


def _certificates(broker: BrokerState) -> Any:
    async def call(_: bytes, __: Any) -> bytes:
        return json.dumps(broker.certificates()).encode()

    return grpc.unary_unary_rpc_method_handler(call)


def _handler(method: Callable[..., Any], request_type: Any) -> Any:
    if method.__name__ == "StreamingPull":
        return grpc.stream_stream_rpc_method_handler(_streaming(method, request_type))
    return grpc.unary_unary_rpc_method_handler(_unary(method, request_type))


def _missing(method: str) -> Any:
    """Make a handler that refuses the method. It suits calls of every kind, because it reads no request."""
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
        except StatusError as refusal:
            await _abort(context, refusal)
        except Exception as error:
            await _abort(context, _explained(error, method.__name__))
        return answer

    return call


def _streaming(method: Callable[[Any, Any], Awaitable[None]], request_type: Any) -> Callable[..., Awaitable[None]]:
    async def call(raws: AsyncIterator[bytes], context: Any) -> None:
        try:
            await method(_all_parsed(request_type, raws), context)
        except StatusError as refusal:
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


def _explained(error: Exception, method: str) -> StatusError:
    """Make the status for an error. The traceback of a bug goes to the log, and the client gets a sentence."""
    if isinstance(error, sqlite3.Error):
        return StatusError(grpc.StatusCode.UNAVAILABLE, "The emulator can't write its data, and is about to stop.")
    logger.exception("The emulator failed in %s. This is a bug in i3tasks.", method)
    return StatusError(grpc.StatusCode.INTERNAL, f"The emulator failed in {method}; its log says why.")


async def _abort(context: Any, refusal: StatusError) -> None:
    """End the call with the refusal's status. Raises an error, so that nothing is sent afterwards."""
    trailing: tuple[tuple[str, bytes], ...] = ()
    if refusal.reasons:
        info = any_pb2.Any()
        info.Pack(error_details_pb2.ErrorInfo(metadata=refusal.reasons, domain="pubsub.googleapis.com"))
        status = status_pb2.Status(code=refusal.code.value[0], message=refusal.sentence, details=[info])
        trailing = (("grpc-status-details-bin", status.SerializeToString()),)
    await context.abort(refusal.code, refusal.sentence, trailing)
