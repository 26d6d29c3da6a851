"""Ack ids, opaque to clients. Each names a subscription, a message, and the lease under which it was delivered."""

from __future__ import annotations

import re
from typing import NamedTuple

_FORM = re.compile(r"([0-9a-f]{1,16})-([0-9a-f]{1,16})-([0-9a-f]{1,16})")


class AckId(NamedTuple):
    """The parts of an ack id."""

    subscription: int
    message: int
    lease: int

    def __str__(self) -> str:
        return f"{self.subscription:x}-{self.message:x}-{self.lease:x}"


def read(text: str) -> AckId | None:
    """Read an ack id. Returns its parts, or None if `text` is no ack id."""
    match = _FORM.fullmatch(text)
    return match and AckId(*(int(part, 16) for part in match.groups()))
