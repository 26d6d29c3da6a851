"""Errors of Google's client library, translated in one place into `BrokerError`s that say what to do."""

from __future__ import annotations

from typing import Any, Literal

from ..conf import PubSubConfig
from ..exceptions import BrokerError

Doing = Literal["publish", "subscribe", "provision"]

_ROLES: dict[Doing, str] = {
    "publish": "roles/pubsub.publisher",
    "subscribe": "roles/pubsub.subscriber",
    "provision": "roles/pubsub.editor",
}


class BrokerUnavailable(BrokerError):
    """Pub/Sub gave no answer. The rows are safe and will be published when it is back."""


class BrokerMissing(BrokerError):
    """The topic or subscription does not exist. Run `i3tasks ensure-pubsub`."""


class BrokerInvalid(BrokerError):
    """Pub/Sub refused the request as invalid. See what it says, and mend the message or the setting."""


class StreamSilent(BrokerError):
    """The stream brought nothing while tries of its queue waited. It is opened again."""


class StreamBroken(BrokerError):
    """The Pub/Sub client no longer works on a stream. It is opened again; if that does not help, the worker ends."""


def translate(error: BaseException, doing: Doing, name: str, config: PubSubConfig) -> BrokerError:
    """Make the BrokerError for `error`, raised while `doing` something with the topic or subscription `name`."""
    from google.api_core import exceptions as api
    from google.auth import exceptions as auth

    if isinstance(error, BrokerError):
        return error
    if isinstance(error, api.RetryError) and error.cause is not None:
        return translate(error.cause, doing, name, config)
    if isinstance(error, auth.GoogleAuthError):
        return BrokerUnavailable(f"Pub/Sub could not be asked to {doing} {name}: {_credentials(error, config)}")
    if isinstance(error, api.NotFound):
        return BrokerMissing(f"Pub/Sub has no {name} (or its topic). Make it with `i3tasks ensure-pubsub`.")
    if isinstance(error, (api.PermissionDenied, api.Forbidden)):
        if "actas" in _text(error).lower():
            return BrokerError(
                f"Pub/Sub refused to {doing} {name}: this process's service account may not have another one sign "
                f"pushes. Grant it roles/iam.serviceAccountUser on that account. ({_text(error)})"
            )
        return BrokerError(
            f"Pub/Sub refused to {doing} {name}: permission denied. Grant {_ROLES[doing]} to the service account that "
            f"this process runs as. ({_text(error)})"
        )
    if isinstance(error, (api.Unauthenticated, api.Unauthorized)):
        return BrokerError(f"Pub/Sub refused to {doing} {name}: {_credentials(error, config)}")
    if isinstance(error, (api.InvalidArgument, api.OutOfRange)):
        return BrokerInvalid(f"Pub/Sub refused to {doing} {name} as invalid: {_text(error)}")
    if isinstance(error, api.ResourceExhausted):
        return BrokerUnavailable(
            f"Pub/Sub refused to {doing} {name}: over quota. Ask for more, or wait. {_text(error)}"
        )
    if _is_transient(error):
        return BrokerUnavailable(f"Pub/Sub gave no answer to {doing} {name} ({_text(error)}). {_advice(config)}")
    return BrokerError(f"Pub/Sub failed to {doing} {name}: {_text(error)}")


def _is_transient(error: BaseException) -> bool:
    from google.api_core import exceptions as api

    # A channel that is closed at shutdown raises ValueError and cancels its running calls.
    return isinstance(error, (api.ServerError, api.Aborted, api.Cancelled, api.TooManyRequests, OSError, ValueError))


def _advice(config: PubSubConfig) -> str:
    if config.emulator:
        return f"Is the emulator running at {config.host}? Start it with `i3tasks emulator`."
    return "It is tried again; look at the network, and at https://status.cloud.google.com if it lasts."


def _credentials(error: BaseException, config: PubSubConfig) -> str:
    if config.credentials:
        return f"the key file {config.credentials} was not accepted ({_text(error)}). Make a new key, or leave it out."
    return (
        f"no valid credentials ({_text(error)}). Set PUBSUB_CONFIG['CREDENTIALS'] to a key file, attach a service "
        "account, or run `gcloud auth application-default login`."
    )


def _text(error: Any) -> str:
    """Write the error in one line, cut to a length that suits a log."""
    return " ".join(str(getattr(error, "message", None) or error or type(error).__name__).split())[:500]
