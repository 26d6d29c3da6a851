"""Making Pub/Sub clients: for an emulator, with a key file, or with application default credentials.

Objects of Google's library are typed as Any, because the library has types for some of its parts only.
"""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import google.api_core.exceptions
import google.api_core.retry
import google.api_core.timeout
import google.oauth2.service_account
import grpc
from google.pubsub_v1 import PublisherClient, SubscriberClient
from google.pubsub_v1.services.publisher.transports import PublisherGrpcTransport
from google.pubsub_v1.services.subscriber.transports import SubscriberGrpcTransport

from ..conf import PubSubConfig
from .loading import importing

api: Any = google.api_core.exceptions
_retry: Any = google.api_core.retry
_timeout: Any = google.api_core.timeout
_service_account: Any = google.oauth2.service_account

_SCOPES = ("https://www.googleapis.com/auth/pubsub",)
# A stream that is opened while the broker is away waits for the connection. Without this it would fail five times, and
# the library would then make it wait ten seconds before the next attempt.
_SERVICE_CONFIG = {
    "methodConfig": [
        {"name": [{"service": "google.pubsub.v1.Subscriber", "method": "StreamingPull"}], "waitForReady": True}
    ]
}
_OWN_OPTIONS = (
    ("grpc.service_config", json.dumps(_SERVICE_CONFIG)),
    # gRPC's own backoff between attempts to connect grows to two minutes, which is too long once the broker is back.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 2000),
    # By default, channels to one address share a connection and its backoff, so a new channel would have to wait too.
    ("grpc.use_local_subchannel_pool", 1),
)
_EMULATOR_OPTIONS = (
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.enable_http_proxy", 0),
    *_OWN_OPTIONS,
)


def make_publisher(config: PubSubConfig) -> Any:
    """Make a GAPIC publisher client. It sends no request yet, but finding default credentials may take a second."""
    return PublisherClient(transport=_transport(config, PublisherGrpcTransport))


def make_admin(config: PubSubConfig) -> tuple[Any, Any]:
    """Make GAPIC publisher and subscriber clients that manage topics and subscriptions."""
    return make_publisher(config), SubscriberClient(transport=_transport(config, SubscriberGrpcTransport))


def make_streaming(client_class: Any, config: PubSubConfig) -> Any:
    """Make a client of `client_class`, a high-level SubscriberClient, with a channel of its own."""
    return client_class(transport=_transport(config, SubscriberGrpcTransport))


def emulator_channel(config: PubSubConfig) -> Any:
    """Make a bare channel to an emulator, for methods that Pub/Sub does not have."""
    return grpc.insecure_channel(config.host or "", options=_EMULATOR_OPTIONS)


def close(client: Any) -> None:
    """Close the client's channel and cancel its running calls. Idempotent."""
    client.transport.grpc_channel.close()


def patience(seconds: float, *, each: float = 5.0) -> dict[str, Any]:
    """Make the arguments for a call that is repeated for `seconds` (0: sent once), with a timeout of `each` seconds.

    The library's own defaults repeat a call for ten minutes.
    """
    passing = (api.ServiceUnavailable, api.InternalServerError, api.Aborted, api.Unknown)
    retry = _retry.Retry(
        predicate=_retry.if_exception_type(*passing), initial=0.1, maximum=1.0, multiplier=2.0, timeout=seconds
    )
    return {"retry": retry if seconds else None, "timeout": _timeout.ConstantTimeout(each)}


def _transport(config: PubSubConfig, transport_class: Any) -> Any:
    """Make a transport for `config`. The client's own transport would prefer an emulator that the environment names."""
    with importing():  # grpc and google-auth import more modules when first used
        return _make_transport(config, transport_class)


def _make_transport(config: PubSubConfig, transport_class: Any) -> Any:
    if config.emulator:
        return transport_class(channel=emulator_channel(config))
    credentials = None  # the library looks for application default credentials
    if config.credentials:
        credentials = _service_account.Credentials.from_service_account_file(config.credentials, scopes=_SCOPES)
    return transport_class(
        credentials=credentials, channel=partial(_channel, transport_class), always_use_jwt_access=True
    )


def _channel(transport_class: Any, host: str, *, options: Any = (), **kwargs: Any) -> Any:
    """Make the library's usual channel with our options added."""
    return transport_class.create_channel(host, options=[*options, *_OWN_OPTIONS], **kwargs)
