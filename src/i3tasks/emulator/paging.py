"""Lists in pages, sorted by name. A page token is the last name of the page before."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable

from .status_errors import invalid

_DEFAULT_SIZE, _MAX_SIZE = 100, 1_000


def page(names: Iterable[str], size: int, token: str) -> tuple[list[str], str]:
    """Give the names after `token`, at most `size` of them, and the token of the next page ('' if there is none)."""
    if size < 0:
        raise invalid(f"Invalid page_size: {size} is negative.")
    last = _read(token)
    rest = sorted(name for name in names if name > last)
    chosen = rest[: min(size or _DEFAULT_SIZE, _MAX_SIZE)]
    return chosen, _token(chosen[-1]) if len(chosen) < len(rest) else ""


def _token(name: str) -> str:
    return base64.urlsafe_b64encode(name.encode()).decode()


def _read(token: str) -> str:
    try:
        return base64.b64decode(token, altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError) as error:
        raise invalid("Invalid page_token: it did not come from an earlier page.") from error
