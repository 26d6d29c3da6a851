"""The error tree is the one that its docstring draws, and every error says what to do without being told."""

import inspect
import pickle
import re
from datetime import timedelta

import pytest

from i3tasks import exceptions

ERRORS = [
    value
    for value in vars(exceptions).values()
    if inspect.isclass(value) and issubclass(value, exceptions.I3TasksError)
]


def drawn() -> dict[str, set[str]]:
    """Class name -> base names, as the module's docstring draws them (all under the one root)."""
    lines = re.findall(r"[├└]── (\w+)(?: \((\w+)\))?", str(exceptions.__doc__))
    return {name: {"I3TasksError", *filter(None, [extra])} for name, extra in lines}


def test_the_tree_in_the_docstring_is_the_real_one() -> None:
    real = {kind.__name__: {base.__name__ for base in kind.__bases__} for kind in ERRORS}
    assert real.pop("I3TasksError") == {"Exception"}
    assert drawn() == real


@pytest.mark.parametrize(
    "kind",
    [kind for kind in ERRORS if kind not in {exceptions.Retry, exceptions.Snooze}],
    ids=lambda kind: kind.__name__,
)
def test_the_default_message_is_the_docstring_on_one_line(kind: type[Exception]) -> None:
    message = str(kind())
    assert message == " ".join(str(kind.__doc__).split())
    assert message.endswith(".")
    assert str(kind("my own words")) == "my own words"
    assert str(kind("")) == ""


def test_snooze_takes_seconds_and_timedeltas_and_travels_between_processes() -> None:
    assert exceptions.Snooze(timedelta(minutes=2)).delay == timedelta(minutes=2)
    snooze = pickle.loads(pickle.dumps(exceptions.Snooze(1.5)))
    assert (snooze.delay, str(snooze)) == (timedelta(seconds=1.5), "The body asked to be run again in 1.5 s.")


def test_retry_takes_seconds_and_timedeltas() -> None:
    assert exceptions.Retry(delay=1.5).delay == timedelta(seconds=1.5)
    assert exceptions.Retry(delay=timedelta(minutes=2)).delay == timedelta(minutes=2)
    assert exceptions.Retry("later").delay is None


@pytest.mark.parametrize("kind", [kind for kind in ERRORS if kind is not exceptions.I3TasksError])
def test_a_default_message_says_what_happened_and_what_to_do(kind: type[Exception]) -> None:
    first = str(kind.__doc__).split("\n")[0]
    assert len(re.findall(r"[.:]( |$)", first)) >= 2, first
