"""What rows carry comes back as itself, or is refused before a row is written, naming the value's path."""

import json
from collections import OrderedDict, UserDict
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from i3tasks.exceptions import ArgumentError
from i3tasks.values import MAXIMUM_DEPTH, TAG, clean_text, decode, encode, encode_arguments, encode_result

offsets = st.integers(-86_399, 86_399).map(lambda seconds: timezone(timedelta(seconds=seconds)))
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=20)
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    texts,
    st.datetimes(timezones=st.none() | st.just(UTC) | offsets),
    st.dates(),
    st.timedeltas(),
    st.uuids(),
    st.decimals(allow_nan=False),
)
keys = texts | st.sampled_from([TAG, "value"])
nested = st.recursive(scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4))


def exactly(value: Any) -> Any:
    """The value with its types and its datetimes' offsets, which `==` overlooks."""
    if isinstance(value, list):
        return [exactly(item) for item in value]
    if isinstance(value, dict):
        return {key: exactly(item) for key, item in value.items()}
    return type(value), value, value.utcoffset() if isinstance(value, datetime) else None


def through_json(value: Any) -> Any:
    return decode(json.loads(json.dumps(encode(value, "x"), allow_nan=False)))


@given(nested)
def test_nested_values_come_back_as_themselves(value: Any) -> None:
    assert exactly(through_json(value)) == exactly(value)


@given(st.recursive(st.none() | st.booleans() | st.integers(-9, 9) | texts, st.lists))
def test_plain_json_is_stored_as_it_is(value: Any) -> None:
    assert encode(value, "x") == value


@pytest.mark.parametrize(
    "value",
    [
        {TAG: "uuid", "value": "no uuid"},
        {TAG: "dict", "value": {}},
        {TAG: {TAG: TAG}, "value": [{TAG: None}]},
        {TAG: "datetime", "value": "2020-01-01T00:00:00", "more": 1},
        {"value": 1},
    ],
)
def test_a_dict_that_looks_like_ours_is_not_mistaken_for_it(value: Any) -> None:
    assert through_json(value) == value


@pytest.mark.parametrize(
    "stored",
    [
        {TAG: "uuid", "value": "garbage"},
        {TAG: "datetime", "value": 7},
        {TAG: "date", "value": None},
        {TAG: "timedelta", "value": [1, 2, 3, 4, 5, 6, 7, 8]},
        {TAG: "timedelta", "value": [10**12, 0, 0]},
        {TAG: "decimal", "value": "one"},
        {TAG: "dict", "value": "text"},
        {TAG: "no such type", "value": 1},
        {TAG: ["unhashable"], "value": 1},
        {TAG: {"a": 1}, "value": 1},
    ],
    ids=str,
)
def test_json_that_encode_did_not_write_comes_back_unchanged(stored: Any) -> None:
    assert decode([stored]) == [stored]


@pytest.mark.parametrize("value", [1e16, -1e300, 1.7976931348623157e308, 123456789012345680000.0])
def test_a_float_that_jsonb_would_turn_into_an_integer_is_tagged(value: float) -> None:
    assert encode(value, "x") == {TAG: "float", "value": repr(value)}
    assert exactly(through_json(value)) == exactly(value)


def test_a_negative_zero_keeps_its_sign() -> None:
    assert str(through_json(-0.0)) == "-0.0"
    assert encode(-0.0, "x") != -0.0, "PostgreSQL's numeric knows one zero only"


class Colour(StrEnum):
    RED = "red"


class Number(IntEnum):
    ONE = 1


class Plain(Enum):
    A = 1


def test_subclasses_of_plain_types_are_stored_as_those() -> None:
    given_values = [Colour.RED, Number.ONE, OrderedDict(a=(1, 2)), UserDict(b=1)]
    assert exactly(encode(given_values, "x")) == exactly(["red", 1, {"a": [1, 2]}, {"b": 1}])


def deep(levels: int) -> Any:
    value: Any = "end"
    for _ in range(levels):
        value = [value]
    return value


REFUSED: list[tuple[Any, str]] = [
    (float("nan"), "nan"),
    (float("inf"), "inf"),
    (float("-inf"), "-inf"),
    ("a\x00b", "NUL"),
    ("\ud800", "surrogate"),
    ({1, 2}, "builtins.set"),
    (object(), "builtins.object"),
    (b"bytes", "builtins.bytes"),
    (bytearray(b"x"), "builtins.bytearray"),
    (Plain.A, "Plain"),
    (1j, "complex"),
    (10**5000, "3,900 digits"),
    (-(10**5000), "3,900 digits"),
    (print, "builtins.builtin_function_or_method"),
    (int, "builtins.type"),
    ((item for item in ()), "generator"),
]


@pytest.mark.parametrize(("value", "why"), REFUSED, ids=[why for _, why in REFUSED])
def test_a_refusal_names_the_argument_and_the_path_inside_it(value: Any, why: str) -> None:
    with pytest.raises(ArgumentError, match=r"^args\[1\]\[2\]\['when'\] .*" + why.replace(".", r"\.")):
        encode_arguments([0, [0, 1, {"when": value}]], {})
    with pytest.raises(ArgumentError, match=r"^kwargs\['now'\] .*" + why.replace(".", r"\.")):
        encode_arguments([], {"now": value})


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({1: "x"}, r"^args\[0\] has the key 1, a int"),
        ({"a": {None: 1}}, r"^args\[0\]\['a'\] has the key None"),
        ({"a\x00": 1}, r"^a key of args\[0\] contains a NUL"),
        ({"\udfff": 1}, r"^a key of args\[0\] contains half of a surrogate"),
        (deep(MAXIMUM_DEPTH + 1), rf"^args\[0\](\[0\]){{{MAXIMUM_DEPTH}}} is nested more than {MAXIMUM_DEPTH}"),
    ],
)
def test_keys_and_depth_are_refused_by_path_too(value: Any, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        encode_arguments([value], {})


def test_a_keyword_that_no_row_can_hold_is_refused() -> None:
    with pytest.raises(ArgumentError, match="keyword contains a NUL"):
        encode_arguments([], {"a\x00": 1})


def test_a_value_that_holds_itself_is_refused_not_followed_for_ever() -> None:
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(ArgumentError, match="levels deep"):
        encode_arguments([loop], {})


def test_the_deepest_value_allowed_comes_back() -> None:
    assert through_json(deep(MAXIMUM_DEPTH - 1)) == deep(MAXIMUM_DEPTH - 1)


class Hostile:
    """Everything that can be asked of it raises."""

    def __repr__(self) -> str:
        raise RuntimeError("no repr")

    __str__ = __repr__


class HostileKey(Hostile):
    def __hash__(self) -> int:
        return 1


class HostileList(list[int]):
    def __iter__(self) -> Any:
        raise RuntimeError("no items")


class HostileDict(UserDict[str, int]):
    def items(self) -> Any:
        raise RuntimeError("no items")


class Impostor:
    """As a lazy object whose set-up fails: even isinstance() raises."""

    @property
    def __class__(self) -> Any:
        raise RuntimeError("no class")

    @__class__.setter
    def __class__(self, value: Any) -> None:
        raise RuntimeError("no class")


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ({1, 2}, "{1, 2}"),
        (float("nan"), "nan"),
        ("a\x00b", "a\ufffdb"),
        ("\ud800", "?"),
        (10**5000, "<int whose str() raised ValueError>"),
        (Hostile(), "<Hostile whose str() raised RuntimeError>"),
        ({HostileKey(): 1}, "<dict whose str() raised RuntimeError>"),
        (HostileList([1]), "[1]"),
        (HostileDict(a=1), "{'a': 1}"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_result_that_json_cannot_hold_is_kept_as_its_text(value: Any, shown: str) -> None:
    assert encode_result(value) == shown


def test_a_result_that_raises_at_every_touch_is_still_a_result() -> None:
    assert isinstance(encode_result(Impostor()), str)
    assert isinstance(encode_result(deep(100_000)), str)


@given(st.recursive(scalars | st.text() | st.floats() | st.binary(), lambda inner: st.lists(inner) | st.tuples(inner)))
def test_encode_result_never_raises_and_gives_json(value: Any) -> None:
    json.dumps(encode_result(value), allow_nan=False).encode()


@given(st.text(), st.none() | st.integers(20, 60))
def test_cleaned_text_suits_any_database_and_keeps_its_limit(text: str, limit: int | None) -> None:
    cleaned = clean_text(text, limit)
    assert "\x00" not in cleaned
    cleaned.encode()
    assert limit is None or len(cleaned) <= limit


def test_long_text_is_cut_in_the_middle() -> None:
    cut = clean_text("a" * 500 + "b" * 500, 100)
    assert (cut[0], cut[-1], len(cut)) == ("a", "b", 100)
    assert "\n...\n" in cut


def test_the_five_types_are_written_as_documented() -> None:
    moment = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    identity = UUID(int=uuid4().int)
    assert encode([moment, date(2026, 1, 2), timedelta(1, 2, 3), identity, Decimal("1.50")], "x") == [
        {TAG: "datetime", "value": "2026-01-02T03:04:05+00:00"},
        {TAG: "date", "value": "2026-01-02"},
        {TAG: "timedelta", "value": [1, 2, 3]},
        {TAG: "uuid", "value": str(identity)},
        {TAG: "decimal", "value": "1.50"},
    ]
