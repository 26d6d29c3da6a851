"""Text from outside, as rows and logs take it."""

from __future__ import annotations

MAXIMUM_BYTES = 1_000_000
"""Of a call's arguments or its result as JSON, unless I3TASKS says otherwise."""


def clean_text(text: str, limit: int | None = None) -> str:
    """`text` as any database will take it, cut in the middle to `limit` characters."""
    if limit is not None and len(text) > limit:
        head, tail = limit // 4, limit - limit // 4 - 5
        text = f"{text[:head]}\n...\n{text[len(text) - tail :]}"
    return text.replace("\x00", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace").decode()


def is_utf8(encoding: object) -> bool:
    """Whether this is a name of UTF-8, the only encoding of messages."""
    return isinstance(encoding, str) and len(encoding) < 10 and encoding.lower().replace("_", "-") in ("utf-8", "utf8")
