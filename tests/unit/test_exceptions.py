"""The error tree is the one that its docstring draws, and every error says what to do without being told."""

import inspect
import pickle
import re
import traceback
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from i3tasks import exceptions

ERRORS = [
    value
    for value in vars(exceptions).values()
    if inspect.isclass(value) and issubclass(value, exceptions.I3TasksError)
]

OF_BODIES = (exceptions.PermanentError, exceptions.Retry, exceptions.Snooze)


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


@pytest.mark.parametrize("given", [60, 1.5, timedelta(minutes=1)])
def test_a_delay_in_the_place_of_retrys_message_is_refused(given: Any) -> None:
    with pytest.raises(exceptions.ArgumentError, match=re.escape(f"write Retry(delay={given!r})")):
        exceptions.Retry(given)


@pytest.mark.parametrize("kind", [kind for kind in ERRORS if kind is not exceptions.I3TasksError])
def test_a_default_message_says_what_happened_and_what_to_do(kind: type[Exception]) -> None:
    first = str(kind.__doc__).split("\n")[0]
    assert len(re.findall(r"[.:]( |$)", first)) >= 2, first


def test_a_traceback_ends_with_the_page_that_says_more() -> None:
    docs = Path(__file__).parents[2] / "docs"
    for kind in ERRORS:
        if kind in OF_BODIES:
            continue
        [line] = traceback.format_exception_only(kind("Sorry."))[1:]
        found = re.fullmatch(r"See docs/([\w/-]+\.md)(?:#([\w-]+))?\.", line.strip())
        assert found is not None, line
        page = (docs / found[1]).read_text(encoding="utf-8")
        assert f"`{kind.__name__}`" in page
        titles = re.findall(r"^#+ (.+)$", page, re.MULTILINE)
        assert not found[2] or found[2] in {re.sub(r"[^\w]+", "-", title.lower()).strip("-") for title in titles}


@pytest.mark.parametrize("kind", OF_BODIES)
def test_what_a_body_raises_itself_has_no_note(kind: type[exceptions.I3TasksError]) -> None:
    error = kind(1) if kind is exceptions.Snooze else kind()  # type: ignore[arg-type]
    assert not hasattr(error, "__notes__")


def test_a_note_is_there_once_behind_a_process() -> None:
    assert pickle.loads(pickle.dumps(exceptions.TaskFailed("no"))).__notes__ == ["See docs/reference/errors.md."]
