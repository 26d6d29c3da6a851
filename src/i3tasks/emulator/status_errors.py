"""The errors with which the emulator refuses a request: a gRPC status code and a sentence for the developer."""

from __future__ import annotations

from collections.abc import Mapping

import grpc


class StatusError(Exception):
    """The error status that answers a request.

    `reasons` become the metadata of a google.rpc.ErrorInfo, in which clients of exactly-once subscriptions find the
    outcome for each ack id.
    """

    def __init__(self, code: grpc.StatusCode, sentence: str, reasons: Mapping[str, str] | None = None) -> None:
        super().__init__(sentence)
        self.code = code
        self.sentence = sentence
        self.reasons = dict(reasons or {})


def invalid(sentence: str) -> StatusError:
    """Make the error for a request that is wrong in any state of the server."""
    return StatusError(grpc.StatusCode.INVALID_ARGUMENT, sentence)


def not_found(sentence: str) -> StatusError:
    """Make the error for a request that names something that does not exist."""
    return StatusError(grpc.StatusCode.NOT_FOUND, sentence)


def already_exists(sentence: str) -> StatusError:
    """Make the error for a request to create something that already exists."""
    return StatusError(grpc.StatusCode.ALREADY_EXISTS, sentence)


def wrong_state(sentence: str, reasons: Mapping[str, str] | None = None) -> StatusError:
    """Make the error for a request that the resource can't carry out in its present state."""
    return StatusError(grpc.StatusCode.FAILED_PRECONDITION, sentence, reasons)


def unimplemented(sentence: str) -> StatusError:
    """Make the error for a feature of Pub/Sub that the emulator does not have."""
    return StatusError(grpc.StatusCode.UNIMPLEMENTED, sentence)
