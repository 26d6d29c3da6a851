"""README and docs say what is so: their settings, defaults, links and code."""

import ast
import dataclasses
import re
from pathlib import Path

import pytest

from i3tasks.types import I3TasksSettings, PullQueue

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
ROW = re.compile(r"^\| `(\w+)` \| `(.+?)` \| (.+) \|$", re.MULTILINE)
LINK = re.compile(r"\]\((?!https?:)([^)#]+)[^)]*\)")
PYTHON = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


def relative(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def test_every_setting_is_documented_with_its_default() -> None:
    text = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
    text = text[text.index("## Queues") :]

    documented = {name: eval(default, {"PullQueue": PullQueue}) for name, default, _ in ROW.findall(text)}

    assert documented == {field.name: field.default for field in dataclasses.fields(I3TasksSettings)}


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_links_lead_somewhere(page: Path) -> None:
    dead = [link for link in LINK.findall(page.read_text(encoding="utf-8")) if not (page.parent / link).exists()]

    assert not dead


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_python_samples_parse(page: Path) -> None:
    for sample in PYTHON.findall(page.read_text(encoding="utf-8")):
        # In a sample, `await` may stand at top level, and `(...)` for parameters that don't matter.
        if ">>>" not in sample:
            sample = sample.replace("(...):", "(*args):")
            compile(sample, relative(page), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


def test_the_readme_has_exactly_two_commands_that_set_up() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")

    assert re.findall(r"^python3 .*$", readme, re.MULTILINE) == [
        "python3 examples/census/run.py",
        "python3 tests/run.py",
    ]
