"""What the example counts in a file, on texts whose figures can be told at a glance."""

import importlib.util
import sys
from types import ModuleType

import pytest

from tests.acceptance.conftest import ROOT


@pytest.fixture(scope="module")
def figures() -> ModuleType:
    file = ROOT / "examples" / "census" / "census" / "figures.py"
    spec = importlib.util.spec_from_file_location("census_figures", file)
    assert spec
    assert spec.loader
    module = sys.modules["census_figures"] = importlib.util.module_from_spec(spec)  # dataclasses look it up there
    spec.loader.exec_module(module)
    return module


def test_everything_that_can_be_counted(figures: ModuleType) -> None:
    text = (
        '"""A module."""\n\n\nclass C:\n    """A class."""\n\n    def m(self): ...\n\n\nasync def f():\n    "Says."\n'
    )

    assert figures.figures_of(text) == figures.Figures(
        lines=11,
        functions=2,
        coroutines=1,
        classes=1,
        documented_module=True,
        documented_functions=1,
        documented_classes=1,
    )


@pytest.mark.parametrize(("text", "lines"), [("", 0), ("x", 1), ("x\n", 1), ("x\ny", 2)])
def test_lines(figures: ModuleType, text: str, lines: int) -> None:
    assert figures.figures_of(text) == figures.Figures(lines=lines)


@pytest.mark.parametrize("text", ["def f(:\n", "x = '\0'\n"])
def test_a_text_that_is_no_python_has_a_problem_and_its_lines(figures: ModuleType, text: str) -> None:
    found = figures.figures_of(text)

    assert found.problem
    assert found == figures.Figures(lines=1, problem=found.problem)
