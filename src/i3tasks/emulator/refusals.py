"""The one way the emulator says no: a gRPC status code and a sentence for the developer."""

from __future__ import annotations

from collections.abc import Mapping

import grpc


class Refusal(Exception):
    """A request that is answered with an error status.

    `reasons` become the metadata of a google.rpc.ErrorInfo, which is where clients of exactly-once subscriptions look
    for the fate of each ack id.
    """

    def __init__(self, code: grpc.StatusCode, sentence: str, reasons: Mapping[str, str] | None = None) -> None:
        super().__init__(sentence)
        self.code = code
        self.sentence = sentence
        self.reasons = dict(reasons or {})


def invalid(sentence: str) -> Refusal:
    """The request itself is wrong, whatever the server's state."""
    return Refusal(grpc.StatusCode.INVALID_ARGUMENT, sentence)


def not_found(sentence: str) -> Refusal:
    """The request names something that isn't there."""
    return Refusal(grpc.StatusCode.NOT_FOUND, sentence)


def already_exists(sentence: str) -> Refusal:
    """The request creates something that is there already."""
    return Refusal(grpc.StatusCode.ALREADY_EXISTS, sentence)


def wrong_state(sentence: str, reasons: Mapping[str, str] | None = None) -> Refusal:
    """The request is fine, but not for a resource in this state."""
    return Refusal(grpc.StatusCode.FAILED_PRECONDITION, sentence, reasons)


def unimplemented(sentence: str) -> Refusal:
    """The real service does this, the emulator does not."""
    return Refusal(grpc.StatusCode.UNIMPLEMENTED, sentence)
