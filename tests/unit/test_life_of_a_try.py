"""The diagram of a try's states is what its script draws, and each arrow names the function that writes it."""

from importlib import import_module
from pathlib import Path
from runpy import run_path

import pytest

from i3tasks.models import TryState

DOCS = Path(__file__).resolve().parents[2] / "docs"
DRAWN = run_path(str(DOCS / "life_of_a_try.py"))
BEFORE_A_CLAIM = {"deferred", "due", "published"}


def test_the_pictures_in_the_page_are_up_to_date() -> None:
    assert DRAWN["PICTURE"].read_text(encoding="utf-8") == DRAWN["picture"](), "run `python docs/life_of_a_try.py`"
    assert DRAWN["table"]() in DRAWN["PAGE"].read_text(encoding="utf-8"), "run `python docs/life_of_a_try.py`"


def test_every_state_is_drawn_and_reached() -> None:
    states = set(DRAWN["STATES"])
    assert {state.value for state in TryState} == (states - BEFORE_A_CLAIM - {"cancelled"}) | {"pending"}
    assert {arrow.target for arrow in DRAWN["ARROWS"]} == states
    assert {arrow.source for arrow in DRAWN["ARROWS"]} <= states | {"a call"}


@pytest.mark.parametrize("name", sorted({arrow.function for arrow in DRAWN["ARROWS"]}))
def test_each_arrow_names_a_function_of_the_store(name: str) -> None:
    module, _, function = name.partition(".")
    assert callable(getattr(import_module(f"i3tasks.store.{module}"), function))
