"""The errors of verification."""

from __future__ import annotations

from ...exceptions import I3TasksError


class RequestRefused(I3TasksError):
    """A push or beat request that could not be verified and is not carried out.

    `status` is the HTTP status of the answer: 401 for a missing or bad token, 403 for the wrong account or if no
    sender is configured, 503 while no certificates can be fetched. `reason` is one word for logs and metrics.
    The message never quotes the token.
    """

    def __init__(self, status: int, reason: str, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status
        self.reason = reason


class CertificatesUnavailable(I3TasksError):
    """The certificates that tokens are checked with could not be fetched."""
