"""Our side of the tables in docs/coming-from is what can be written: within lines, where no block of code runs it."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from i3tasks import ChainHandle, PermanentError, Retry, RetryPolicy, Snooze, Task, group, schedule_task
from i3tasks.calls.keywords import TaskKeywords
from tests.acceptance.conftest import ROOT

PAGES = sorted((ROOT / "docs" / "coming-from").glob("*.md"))
RAISED = {kind.__name__: kind for kind in (Retry, Snooze, PermanentError)}
KEYWORDS = {
    "task": set(TaskKeywords.__annotations__),
    "group": set(inspect.signature(group).parameters),
    **{
        call.__name__: set(inspect.signature(call).parameters)
        for call in (Task.using, Task.discard, RetryPolicy, ChainHandle.result, ChainHandle.aresult, schedule_task)
    },
}


def calls(page: Path) -> Iterator[ast.Call]:
    """The calls in the last column of the page's tables."""
    for row in re.findall(r"^\| (.+) \|$", page.read_text(encoding="utf-8"), re.MULTILINE):
        for code in re.findall(r"`([^`]+)`", row.rpartition(" | ")[2]):
            code = re.sub(r"^(@|raise |await )", "", code).partition(" async def ")[0].partition(" def ")[0]
            try:
                tree = ast.parse(code)
            except SyntaxError:  # a command
                continue
            yield from (node for node in ast.walk(tree) if isinstance(node, ast.Call))


def name_of(call: ast.Call) -> str:
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_calls_take_the_keywords_that_the_tables_give_them(page: Path) -> None:
    for call in calls(page):
        if (known := KEYWORDS.get(name_of(call))) is not None:
            assert {each.arg for each in call.keywords} <= known, ast.unparse(call)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_errors_of_bodies_can_be_made_as_the_tables_show(page: Path) -> None:
    for call in calls(page):
        if name_of(call) in RAISED:
            eval(ast.unparse(call), dict(RAISED))


def test_there_are_such_calls() -> None:
    names = [name_of(call) for page in PAGES for call in calls(page)]
    assert names.count("using") > 10
    assert names.count("task") > 5
    assert "Retry" in names
