"""Python values <-> the JSON that rows carry.

Plain JSON stays as it is. Values of other types are written as `{"__i3tasks__": TYPE, "value": JSON}` and come back as
themselves: datetime, date, time (each with its ZoneInfo), timedelta, UUID, Decimal, bytes, tuple, set, frozenset, and
members of an Enum, by name. A dict with the key `__i3tasks__` is wrapped in the same way, so no value of a caller is
ever taken for one of these. Any other value is refused with its path, before a row is written.

Values are nested at most MAXIMUM_DEPTH levels deep, and all walks take time in proportion to their size.
"""

from .decoding import decode, unavailable
from .encoding import EncodedResult, encode, encode_arguments, encode_result
from .form import (
    JSON,
    MAXIMUM_DEPTH,
    MAXIMUM_DIGITS,
    MAXIMUM_STORED_DEPTH,
    RESULT,
    RESULT_JSON,
    TAG,
    Placeholder,
)
from .walking import placeholders, shown, shown_keywords, with_result

__all__ = [
    "JSON",
    "MAXIMUM_DEPTH",
    "MAXIMUM_DIGITS",
    "MAXIMUM_STORED_DEPTH",
    "RESULT",
    "RESULT_JSON",
    "TAG",
    "EncodedResult",
    "Placeholder",
    "decode",
    "encode",
    "encode_arguments",
    "encode_result",
    "placeholders",
    "shown",
    "shown_keywords",
    "unavailable",
    "with_result",
]
