"""What rows carry comes back as itself, or is refused before a row is written, naming the value's path."""

import json
from collections import OrderedDict, UserDict
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, Flag, IntEnum, IntFlag, StrEnum
from typing import Any
from uuid import UUID, uuid4
from zoneinfo import ZoneInfo

import pytest
from django.core.serializers.json import DjangoJSONEncoder
from hypothesis import given
from hypothesis import strategies as st

from i3tasks.core.text import clean_text
from i3tasks.core.values import (
    MAXIMUM_DEPTH,
    MAXIMUM_STORED_DEPTH,
    RESULT,
    TAG,
    decode,
    encode,
    encode_arguments,
    encode_result,
    placeholders,
    shown,
    shown_keywords,
    unavailable,
    with_result,
)
from i3tasks.exceptions import ArgumentError, ResultUnavailable

offsets = st.integers(-86_399, 86_399).map(lambda seconds: timezone(timedelta(seconds=seconds)))
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=20)


class Colour(StrEnum):
    RED = "red"
    CRIMSON = "red"


class Number(IntEnum):
    ONE = 1


class Plain(Enum):
    A = 1
    B = ("a", "tuple")


class Right(Flag):
    READ = 1
    WRITE = 2


class Bit(IntFlag):
    LOW = 1
    HIGH = 2


class Outer:
    class Inner(Enum):
        X = "x"


zones = st.sampled_from(["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "UTC"]).map(ZoneInfo)
members = st.sampled_from([Colour.RED, Number.ONE, Plain.A, Plain.B, Right.WRITE, Bit.HIGH, Outer.Inner.X])
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    texts,
    st.datetimes(timezones=st.none() | st.just(UTC) | offsets | zones, allow_imaginary=True),
    st.times(timezones=st.none() | st.just(UTC) | offsets | zones),
    st.binary(max_size=20),
    members,
    st.dates(),
    st.timedeltas(),
    st.uuids(),
    st.decimals(allow_nan=False),
)
keys = texts | st.sampled_from([TAG, "value"])
hashable: st.SearchStrategy[Any] = st.deferred(
    lambda: scalars | st.frozensets(scalars, max_size=3) | st.tuples(hashable, scalars)
)
nested = st.recursive(
    st.deferred(lambda: scalars | st.sets(hashable, max_size=3)),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4) | st.lists(inner, max_size=4).map(tuple)
    ),
)


def exactly(value: Any) -> Any:
    """The value with its types, zones and folds, which `==` overlooks."""
    if isinstance(value, (list, tuple)):
        return type(value), [exactly(item) for item in value]
    if isinstance(value, (set, frozenset)):
        return type(value), {repr(exactly(item)) for item in value}
    if isinstance(value, dict):
        return {key: exactly(item) for key, item in value.items()}
    if isinstance(value, (datetime, time)):
        zone = value.tzinfo.key if isinstance(value.tzinfo, ZoneInfo) else value.utcoffset()
        return type(value), value.replace(tzinfo=None), value.fold, zone
    return type(value), value


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


def local_enum() -> Any:
    class Local(Enum):
        A = 1

    return Local.A


def test_a_day_later_is_the_same_hour_when_the_clocks_change() -> None:
    before = datetime(2026, 3, 28, 9, tzinfo=ZoneInfo("Europe/Berlin"))
    assert (through_json(before) + timedelta(days=1)).isoformat() == "2026-03-29T09:00:00+02:00"


def test_members_of_an_enum_come_back_by_name() -> None:
    assert encode(Plain.B, "x") == {TAG: "enum", "value": [__name__, "Plain", "B"]}
    assert through_json(Colour.CRIMSON) is Colour.RED
    with pytest.raises(ArgumentError, match=r"no enum .*Plain with a member GONE. Import its module"):
        decode({TAG: "enum", "value": [__name__, "Plain", "GONE"]})


@pytest.mark.parametrize("name", [["os", "environ"], ["os", "system"], ["no.such.module", "X"], [__name__, "Outer"]])
def test_a_row_that_names_something_else_than_an_enum_imports_and_calls_nothing(name: list[str]) -> None:
    with pytest.raises(ArgumentError, match="knows no enum"):
        decode({TAG: "enum", "value": [*name, "A"]})


def test_a_zone_that_this_machine_lacks_is_said() -> None:
    with pytest.raises(ArgumentError, match="no time zone 'Mars/Olympus'"):
        decode({TAG: "datetime", "value": ["2026-01-01T00:00:00", "Mars/Olympus", 0]})


def test_subclasses_of_plain_types_are_stored_as_those() -> None:
    given_values = [OrderedDict(a=[1]), UserDict(b=1), Bit.LOW | Bit.HIGH]
    assert encode(given_values, "x") == [{"a": [1]}, {"b": 1}, 3]


def test_equal_sets_are_written_alike() -> None:
    names = [f"name {number}" for number in range(50)]
    assert encode(set(names), "x") == encode({*names[25:], *names[:25]}, "x")


def test_a_list_and_a_tuple_are_two_things() -> None:
    assert through_json([(1, 2), [1, 2]]) == [(1, 2), [1, 2]]


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
    (object(), "builtins.object"),
    (bytearray(b"x"), "builtins.bytearray"),
    (local_enum(), "Local"),
    (Right.READ | Right.WRITE, "Right"),
    ({1j}, "complex"),
    ((1, 1j), "complex"),
    (1j, "complex"),
    (10**3900, "3,900 digits"),
    (-(10**3900), "3,900 digits"),
    (print, "builtins.builtin_function_or_method"),
    (int, "builtins.type"),
    ((item for item in ()), "generator"),
]


@pytest.mark.parametrize(("value", "why"), REFUSED, ids=[why for _, why in REFUSED])
def test_a_refusal_names_the_argument_and_the_path_inside_it(value: Any, why: str) -> None:
    with pytest.raises(ArgumentError, match=r"^args\[1\]\[2\]\['when'\].* .*" + why.replace(".", r"\.")):
        encode_arguments([0, [0, 1, {"when": value}]], {})
    with pytest.raises(ArgumentError, match=r"^kwargs\['now'\].* .*" + why.replace(".", r"\.")):
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
    with pytest.raises(ArgumentError, match="A keyword contains a NUL"):
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
        ({1: "a"}, "{1: 'a'}"),
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
    encoded = encode_result(value)
    assert encoded.data == shown
    assert str(encoded.text_of).rpartition(".")[2] == type(value).__name__


def test_a_result_that_raises_at_every_touch_is_still_a_result() -> None:
    assert encode_result(Impostor()).text_of == f"{__name__}.Impostor"
    assert encode_result(deep(100_000)).text_of == "list"


@given(st.recursive(scalars | st.text() | st.floats() | st.binary(), lambda inner: st.lists(inner) | st.tuples(inner)))
def test_encode_result_never_raises_and_gives_json(value: Any) -> None:
    encoded = encode_result(value)
    json.dumps(encoded.data, allow_nan=False).encode()
    assert encoded.text_of or exactly(decode(encoded.data)) == exactly(value)


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


def test_types_are_written_as_documented() -> None:
    moment = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    identity = UUID(int=uuid4().int)
    values = [moment, date(2026, 1, 2), timedelta(1, 2, 3), identity, Decimal("1.50"), time(1, 2), b"a", (1,), {1}]
    assert encode(values, "x") == [
        {TAG: "datetime", "value": "2026-01-02T03:04:05+00:00"},
        {TAG: "date", "value": "2026-01-02"},
        {TAG: "timedelta", "value": [1, 2, 3]},
        {TAG: "uuid", "value": str(identity)},
        {TAG: "decimal", "value": "1.50"},
        {TAG: "time", "value": "01:02:00"},
        {TAG: "bytes", "value": "YQ=="},
        {TAG: "tuple", "value": [1]},
        {TAG: "set", "value": [1]},
    ]
    assert encode(datetime(2026, 10, 25, 2, 30, fold=1, tzinfo=ZoneInfo("Europe/Berlin")), "x") == {
        TAG: "datetime",
        "value": ["2026-10-25T02:30:00", "Europe/Berlin", 1],
    }


# ---------------------------------------------------------------------------------------------- size and effort


class Counted(dict[str, Any]):
    """Counts how often it is walked, and how often it is printed."""

    walks = 0

    def items(self) -> Any:
        Counted.walks += 1
        return super().items()

    def __repr__(self) -> str:
        raise AssertionError("printed, though nothing is wrong")


def test_each_container_is_walked_once() -> None:
    Counted.walks = 0
    value = Counted({f"k{outer}": [Counted({"inner": number}) for number in range(100)] for outer in range(100)})
    encode_arguments([value], {})
    assert Counted.walks == 10_001


@pytest.mark.parametrize(
    "value",
    [
        "x" * 1001,
        "é" * 501,
        [1] * 501,
        b"x" * 1000,
        {"k" * 500: "v" * 500},
        {str(n) for n in range(400)},
        ("x" * 600,) * 2,
    ],
)
def test_large_arguments_are_refused_by_their_size(value: Any) -> None:
    with pytest.raises(ArgumentError, match=r"more than 1,000 bytes .*maximum_payload_bytes"):
        encode_arguments([value], {}, limit=1000)
    with pytest.raises(ArgumentError, match="1,000 bytes"):
        encode_arguments([1], {"x": value}, limit=1000)
    encode_arguments([value], {}, limit=10_000)


def test_the_size_counts_all_arguments_together() -> None:
    encode_arguments(["x" * 300], {"y": "y" * 300}, limit=1000)
    with pytest.raises(ArgumentError):
        encode_arguments(["x" * 300] * 2, {"y": "y" * 300, "z": "z" * 300}, limit=1000)


def test_an_endless_value_is_refused_when_it_is_too_large() -> None:
    class Endless(list[int]):
        def __iter__(self) -> Any:
            while True:
                yield 1

    with pytest.raises(ArgumentError, match="bytes"):
        encode(Endless(), "x")
    twice: list[Any] = []
    for _ in range(60):
        twice = [twice, twice]
    with pytest.raises(ArgumentError, match="bytes"):
        encode(twice, "x")


def test_a_large_result_is_text_that_says_so() -> None:
    encoded = encode_result(["x" * 100] * 100, 1000)
    assert encoded.text_of == "list"
    assert "more than 1,000 bytes" in encoded.data
    assert len(encode_result(Hostile(), 1000).data) < 1000


def deep_json(levels: int, wrap: Any) -> Any:
    value: Any = "end"
    for _ in range(levels):
        value = wrap(value)
    return value


@pytest.mark.parametrize(
    "wrap", [lambda value: [value], lambda value: {"a": value}, lambda value: {TAG: "tuple", "value": [value]}]
)
def test_json_that_is_too_deep_is_said_and_no_walk_follows_it(wrap: Any) -> None:
    value = deep_json(5000, wrap)
    with pytest.raises(ArgumentError, match=f"more than {MAXIMUM_STORED_DEPTH} levels"):
        decode(value)
    assert placeholders(value) == 0
    assert with_result(value, 1) is not None
    json.dumps(shown(value))


# ------------------------------------------------------------------------------------------------------- RESULT


def test_result_belongs_into_steps_only() -> None:
    for value in (RESULT, [RESULT], {"a": (RESULT,)}):
        with pytest.raises(ArgumentError, match="is RESULT, which has a meaning in a later step only"):
            encode_arguments([value], {})
        encode_arguments([value], {}, of_step=True)
    with pytest.raises(ArgumentError, match="may not fit"):
        encode_arguments([{(RESULT,)}], {}, of_step=True)


@given(nested)
def test_a_callers_value_is_never_taken_for_result(value: Any) -> None:
    encoded = encode(value, "x")
    assert placeholders(encoded) == 0
    assert with_result(encoded, "SECRET") == encoded


markup = st.recursive(
    st.none() | st.sampled_from(["result", "dict", "tuple", "enum", "unavailable", TAG, "value"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([TAG, "value", "a"]), inner, max_size=3)
    ),
)


@given(markup, st.lists(st.sampled_from(["list", "dict", "markup"]), max_size=4))
def test_result_is_found_beside_whatever_a_caller_sends(value: Any, path: list[str]) -> None:
    def around(inner: Any) -> Any:
        for kind in path:
            inner = {"list": [value, inner], "dict": {"x": value, "y": inner}, "markup": {TAG: value, "value": inner}}[
                kind
            ]
        return inner

    [encoded], _ = encode_arguments([around(RESULT)], {}, of_step=True)
    assert placeholders(encoded) == 1
    assert decode(with_result(encoded, encode("GIVEN", "x"))) == around("GIVEN")


def test_a_result_that_was_not_kept_raises_where_it_is_read() -> None:
    with pytest.raises(ResultUnavailable, match="returned a set"):
        decode([1, {"a": unavailable("shop.tasks.f returned a set")}])


@given(nested)
def test_every_value_can_be_shown(value: Any) -> None:
    json.loads(json.dumps(shown(encode(value, "x")), cls=DjangoJSONEncoder))


@given(
    st.recursive(st.none() | st.booleans() | st.integers() | texts, lambda i: st.lists(i) | st.dictionaries(keys, i))
)
def test_any_json_in_a_row_can_be_shown(stored: Any) -> None:
    json.loads(json.dumps(shown(stored), cls=DjangoJSONEncoder))


def test_values_are_shown_for_people() -> None:
    value = [(1, {2}), Plain.A, b"a", {TAG: 1}, {TAG: "result", "value": None}]
    assert shown(encode(value, "x")) == [
        [1, [2]],
        f"{__name__}.Plain.A",
        "YQ==",
        {TAG: 1},
        {TAG: "result", "value": None},
    ]
    assert shown(unavailable("It was not kept.")) == "It was not kept."
    assert shown_keywords({TAG: "result", "value": None}) == {TAG: "result", "value": None}


@pytest.mark.parametrize("value", [10**3900 - 1, 1 - 10**3900])
def test_an_integer_may_have_3900_digits(value: int) -> None:
    assert decode(json.loads(json.dumps(encode(value, "args[0]")))) == value
