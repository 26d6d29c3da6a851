"""README and docs say what is so: their settings, defaults, links and code."""

import ast
import configparser
import dataclasses
import json
import re
import tomllib
from importlib import import_module
from pathlib import Path

import pytest

from i3tasks.types import I3TasksSettings, PullQueue
from tests.support.doc_commands import command_lines, problem

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
ROW = re.compile(r"^\| `(\w+)` \| `(.+?)` \| (.+) \|$", re.MULTILINE)
LINK = re.compile(r"\]\((?!https?:)([^)#]+)[^)]*\)")
PYTHON = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
ANY_BLOCK = re.compile(r"^ *```([^\n`]*)\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
OUR_IMPORT = re.compile(r"from (i3tasks[\w.]*) import ([\w, ]+)$")


def relative(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def test_every_setting_is_documented_with_its_default() -> None:
    text = (ROOT / "docs" / "reference" / "settings.md").read_text(encoding="utf-8")
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


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_what_python_samples_import_is_there(page: Path) -> None:
    """Of ours; `shop` and the like are the reader's."""
    for sample in PYTHON.findall(page.read_text(encoding="utf-8")):
        for line in sample.splitlines():
            named = OUR_IMPORT.match(line.removeprefix(">>> ").strip())
            if named:
                found = import_module(named[1])
                missing = [name for name in re.findall(r"\w+", named[2]) if not hasattr(found, name)]
                assert not missing, f"{named[1]} has no {missing}"


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_commands_take_the_options_that_pages_show(page: Path) -> None:
    wrong = {line: said for line in command_lines(page) if (said := problem(line))}

    assert not wrong


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("i3tasks run-worker --concurency 3", "unrecognized"),
        ("i3tasks run-workers", "no command"),
        ("python manage.py i3tasks_clean --days", "expected one argument"),
        ("i3tasks emulator --host-port 8085 &", "options are wrong"),
        ("i3tasks status $ID --json  # one", ""),
    ],
)
def test_a_command_that_rots_is_found(line: str, said: str) -> None:
    assert said in problem(line)
    assert bool(problem(line)) is bool(said)


def test_data_in_the_pages_can_be_read() -> None:
    read = {"json": json.loads, "toml": tomllib.loads, "ini": configparser.ConfigParser(interpolation=None).read_string}
    kinds = {"python", "sh", "console", "text", "", "{eval-rst}", "{toctree}", *read}
    for page in PAGES:
        for kind, block in ANY_BLOCK.findall(page.read_text(encoding="utf-8")):
            assert kind in kinds, f"{relative(page)}: nothing tests a block of {kind}"
            read.get(kind, str)(block)


def test_the_extras_that_pages_install_are_there() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for page in PAGES:
        for extras in re.findall(r"(?:i3tasks|the/clone)\[([\w,]+)\]", page.read_text(encoding="utf-8")):
            assert set(extras.split(",")) <= set(project["optional-dependencies"]), relative(page)


def test_the_readme_has_exactly_two_commands_that_set_up() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")

    assert re.findall(r"^python3 .*$", readme, re.MULTILINE) == [
        "python3 examples/census/run.py",
        "python3 tests/run.py",
    ]
