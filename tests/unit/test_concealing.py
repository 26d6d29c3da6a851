"""Sensitive arguments are found wherever a call may have them, and hidden however an error's text spells them."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from urllib.parse import urlencode

import pytest

from i3tasks.core.concealing import HIDDEN, MOST_TEXTS, concealed, concealed_steps, concealer
from i3tasks.core.values import encode


def charge(order: int, card: Any, /, cvv: Any = None, *parts: Any, total: int = 0, **more: Any) -> None:
    """A task's function with a parameter of each kind."""


def hiding(value: Any) -> Any:
    """What hides the value of `card`."""
    return concealer(charge, ["card"], [1, encode(value, "card")], {})


@pytest.mark.parametrize(
    ("sensitive", "args", "kwargs", "expected"),
    [
        ((), [1, "4111"], {}, ([1, "4111"], {})),
        (("card",), [1, "4111"], {"total": 2}, ([1, HIDDEN], {"total": 2})),
        (("card", "cvv"), [1, "4111", "77"], {}, ([1, HIDDEN, HIDDEN], {})),
        (("cvv",), [1, "4111"], {"cvv": "77"}, ([1, "4111"], {"cvv": HIDDEN})),
        (("parts",), [1, "4111", "77", "a", "b"], {}, ([1, "4111", "77", HIDDEN, HIDDEN], {})),
        (("more",), [1, "4111"], {"total": 2, "pin": 3}, ([1, "4111"], {"total": 2, "pin": HIDDEN})),
        (("pin",), [1, "4111"], {"pin": 3, "other": 4}, ([1, "4111"], {"pin": HIDDEN, "other": 4})),
        (("card",), {"a": 1}, {}, (HIDDEN, HIDDEN)),
        (("card",), [], "x", (HIDDEN, HIDDEN)),
    ],
)
def test_a_call_is_shown_without_its_sensitive_arguments(
    sensitive: tuple[str, ...], args: Any, kwargs: Any, expected: Any
) -> None:
    assert concealed(charge, sensitive, args, kwargs) == expected


def test_too_many_arguments_are_shown_as_far_as_they_belong_to_no_sensitive_parameter() -> None:
    def two(first: int, second: int) -> None: ...

    assert concealed(two, ["second"], [1, 2, 3], {}) == ([1, HIDDEN, 3], {})


SPELT: dict[str, tuple[Any, Any]] = {
    "text": ("4111-1111", lambda value: f"declined: {value}!"),
    "repr": ("it's\n\\n", lambda value: f"bad {value!r}"),
    "key error": ("4111 1111", lambda value: str(KeyError(value))),
    "in a URL": ("a&b c/d@e", lambda value: f"GET /?{urlencode({'card': value})}"),
    "json": ('sécret"x', lambda value: __import__("json").dumps({"card": value})),
    "number": (41111111, lambda value: f"no card {value}, sorry"),
    "decimal": (Decimal("4111.11"), lambda value: f"{value!r} and {value}"),
    "day": (date(1970, 1, 2), lambda value: f"{value} {value!r} {value:%Y-%m-%d}"),
    "instant": (datetime(1970, 1, 2, 3, tzinfo=UTC), lambda value: f"{value} {value!r}"),
    "within": ({"card": ["4111-1111", {"cvv": "9876"}]}, lambda value: f"{value!r}"),
    "bytes": (b"4111\xff", lambda value: f"{value!r}"),
}


@pytest.mark.parametrize("name", SPELT)
def test_a_text_that_quotes_a_value_does_not_show_it(name: str) -> None:
    value, quoted = SPELT[name]
    text = quoted(value)
    shown = hiding(value)(text)
    assert HIDDEN in shown
    for part in ("4111", "9876", "1970", "a%26b", "cret", "it's", "it\\'s"):
        assert part not in shown


def test_a_short_value_is_hidden_where_it_stands_alone() -> None:
    conceal = hiding(7)
    assert conceal("cvv 7, line 17, '7', x7") == f"cvv {HIDDEN}, line 17, '{HIDDEN}', x7"


def test_the_longest_of_several_values_is_hidden_first() -> None:
    assert hiding(["4111", "4111-2222"])("4111-2222 4111") == f"{HIDDEN} {HIDDEN}"


@pytest.mark.parametrize("value", [None, True, "", " ", [], {}])
def test_what_is_no_secret_by_itself_leaves_texts_as_they_are(value: Any) -> None:
    assert hiding(value)("None True {} []") == "None True {} []"


def test_of_too_many_values_the_whole_text_is_hidden() -> None:
    assert hiding([f"{number:08}" for number in range(MOST_TEXTS + 1)])("anything") == HIDDEN


def test_of_a_row_that_holds_no_arguments_every_text_is_hidden() -> None:
    conceal = concealer(charge, ["card"], "4111", {})
    assert conceal is not None
    assert conceal("4111") == HIDDEN


def test_a_task_without_sensitive_parameters_has_nothing_to_hide() -> None:
    assert concealer(charge, (), [1, "4111"], {}) is None


def test_steps_are_concealed_at_any_depth() -> None:
    step = {"module_name": "shop", "func_name": "charge", "args": [1, "4111"], "kwargs": {"x": {"module_name": "y"}}}
    group = {"group": {"members": [[step], [{**step, "on_success": [step]}]], "on_failure": step}}

    def call(module: str, name: str, args: Any, kwargs: Any) -> tuple[Any, Any]:
        assert (module, name) == ("shop", "charge")
        return concealed(charge, ["card"], args, kwargs)

    hidden = {**step, "args": [1, HIDDEN]}
    assert concealed_steps([step, group, 7, "x"], call) == [
        hidden,
        {"group": {"members": [[hidden], [{**hidden, "on_success": [hidden]}]], "on_failure": hidden}},
        7,
        "x",
    ]
