"""The filter language: what matches, what is refused, and that nothing else happens."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from i3tasks.emulator import filters
from i3tasks.emulator.status_errors import StatusError


@pytest.mark.parametrize(
    ("text", "attributes", "matches"),
    [
        ("", {}, True),
        ("   ", {}, True),
        ("attributes:name", {"name": ""}, True),
        ("attributes:name", {"Name": ""}, False),
        ('attributes:"iana.org/lang"', {"iana.org/lang": "en"}, True),
        ('attributes.name="com"', {"name": "com"}, True),
        ('attributes.name = "com"', {"name": "Com"}, False),
        ('attributes.name != "com"', {"name": "net"}, True),
        ('attributes.name != "com"', {}, True),
        ('attributes."a b" = "c"', {"a b": "c"}, True),
        ('hasPrefix(attributes.name, "co")', {"name": "com"}, True),
        ('hasPrefix( attributes.name , "" )', {}, False),
        ("NOT attributes:name", {}, True),
        ("-attributes:name", {"name": ""}, False),
        ("NOT NOT attributes:name", {"name": ""}, True),
        ("NOT (attributes:a OR attributes:b)", {"b": ""}, False),
        ("attributes:a AND attributes:b AND attributes:c", {"a": "", "b": ""}, False),
        ("attributes:a OR attributes:b OR attributes:c", {"c": ""}, True),
        ("attributes:a AND (attributes:b OR attributes:c)", {"a": "", "c": ""}, True),
        ("(((attributes:a)))", {"a": ""}, True),
        ("attributes:-x OR attributes:a-b", {"a-b": ""}, None),
        ("attributes:a-b", {"a-b": ""}, True),
        ('attributes:AND', {"AND": ""}, True),
        (r'attributes.a = "\"\\\n\x41\u00e9\U0001F600\101"', {"a": '"\\\nAé😀A'}, True),
        ('attributes.a = "é"', {"a": "é"}, True),
    ],
)  # fmt: skip
def test_matches(text: str, attributes: dict[str, str], matches: bool | None) -> None:
    if matches is None:
        with pytest.raises(StatusError):
            filters.parse(text)
    else:
        assert filters.parse(text)(attributes) is matches


@pytest.mark.parametrize(
    "text",
    [
        "attributes",
        "attributes:",
        "attributes.a",
        "attributes.a = b",
        'attributes.a == "b"',
        'attributes.a = "b',
        "attributes:a attributes:b",
        "attributes:a AND",
        "attributes:a and attributes:b",
        "attributes:a AND attributes:b OR attributes:c",
        "(attributes:a",
        "attributes:a)",
        "()",
        "NOT",
        "NOTattributes:a",
        "hasPrefix(attributes:a, 'b')",
        'hasprefix(attributes.a, "b")',
        'hasPrefix(attributes.a "b")',
        r'attributes.a = "\q"',
        r'attributes.a = "\UFFFFFFFF"',
        'data = "x"',
        "attributes:é",
        "attributes:" + "a" * 250,
    ],
)
def test_refusals(text: str) -> None:
    with pytest.raises(StatusError, match="Invalid filter"):
        filters.parse(text)


_PIECES = [
    "attributes",
    ":",
    ".",
    "=",
    "!=",
    "(",
    ")",
    "AND",
    "OR",
    "NOT",
    "-",
    "hasPrefix",
    ",",
    '"a"',
    "a",
    "\\",
    '"',
    " ",
    "é",
]


@given(st.one_of(st.text(max_size=300), st.lists(st.sampled_from(_PIECES), max_size=120).map(" ".join)))
def test_any_text_is_parsed_or_refused(text: str) -> None:
    try:
        predicate = filters.parse(text)
    except StatusError:
        return
    assert predicate({"a": "a"}) in (True, False)


_KEYS = st.sampled_from(["a", "b", "c"])
_COMPARISONS = st.one_of(
    _KEYS.map(lambda key: (f"attributes:{key}", lambda given: key in given)),
    st.tuples(_KEYS, _KEYS).map(
        lambda pair: (f'attributes.{pair[0]} = "{pair[1]}"', lambda given: given.get(pair[0]) == pair[1])
    ),
)


def _combined(inner: st.SearchStrategy) -> st.SearchStrategy:  # type: ignore[type-arg]
    pairs = st.tuples(inner, inner)
    return st.one_of(
        inner.map(lambda one: (f"NOT ({one[0]})", lambda given: not one[1](given))),
        pairs.map(
            lambda two: (f"({two[0][0]}) AND ({two[1][0]})", lambda given: two[0][1](given) and two[1][1](given))
        ),
        pairs.map(lambda two: (f"({two[0][0]}) OR ({two[1][0]})", lambda given: two[0][1](given) or two[1][1](given))),
    )


@given(st.recursive(_COMPARISONS, _combined, max_leaves=5), st.dictionaries(_KEYS, _KEYS))
def test_filters_mean_what_they_say(case: tuple, attributes: dict[str, str]) -> None:  # type: ignore[type-arg]
    text, expected = case
    if len(text) <= filters.MAX_BYTES:
        assert filters.parse(text)(attributes) == expected(attributes)
