"""Cron expressions in words, and that words which don't fit are not used."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from i3tasks.core.cron_words import in_words
from i3tasks.core.crontab import validate


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ("* * * * *", "every minute"),
        ("*/15 * * * *", "every 15 minutes"),
        ("0 * * * *", "every hour"),
        ("@hourly", "every hour"),
        ("20 * * * *", "at minute 20 of every hour"),
        ("*/25 * * * *", "at the minutes 0, 25 and 50 of every hour"),
        ("10-20 * * * *", "at the minutes 10 to 20 of every hour"),
        ("30 3 * * *", "at 03:30, every day"),
        ("@daily", "at 00:00, every day"),
        ("0,30 9 * * 1-5", "at 09:00 and 09:30, Monday to Friday"),
        ("15 */2 * * *", "every 2 hours, at minute 15"),
        ("0 9-17 * * mon-fri", "every hour, in the hours 9 to 17, Monday to Friday"),
        ("* 9 * * *", "every minute from 09:00 to 09:59"),
        ("0 0 * * 7", "at 00:00, Sunday"),
        ("0 3 1,15 * *", "at 03:00, on day 1 and 15 of the month"),
        ("0 3 l * *", "at 03:00, on the last day of the month"),
        ("0 3 13 * fri", "at 03:00, on day 13 of the month or on Friday"),
        ("@yearly", "at 00:00, on day 1 of the month, in January"),
        ("5 4 * * sun#2", "5 4 * * sun#2"),
        ("0 0 * * L5", "0 0 * * L5"),
        ("no cron", "no cron"),
    ],
)
def test_words(expression: str, words: str) -> None:
    assert in_words(expression) == words


def field(first: int, last: int) -> st.SearchStrategy[str]:
    number = st.integers(first, last)
    step = st.integers(2, max(2, (last - first) // 2)).map(lambda size: f"*/{size}")
    span = st.tuples(number, number).map(lambda ends: f"{min(ends)}-{max(ends)}")
    return st.one_of(
        st.just("*"), number.map(str), step, span, st.tuples(number, number).map(lambda two: f"{two[0]},{two[1]}")
    )


@given(st.tuples(field(0, 59), field(0, 23), field(1, 28), field(1, 12), field(0, 6)).map(" ".join))
def test_every_expression_has_words_that_name_what_it_restricts(expression: str) -> None:
    validate(expression)
    words = in_words(expression)
    assert words != expression
    assert words.startswith(("every", "at "))
    assert (
        expression.startswith("* *") == words.startswith("every minute,") or words == "every minute" or "from" in words
    )
