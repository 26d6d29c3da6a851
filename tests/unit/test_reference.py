"""The reference has an entry for everything public: a missing one fails here, and so does one of what is gone.

An entry is a heading, the first cell of a table's row, or an autodoc directive, below the heading of what it belongs
to.
"""

import argparse
import ast
import dataclasses
import inspect
import re
from functools import reduce
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from runpy import run_path
from typing import Any

import pytest
from django.apps import apps
from django.core.management import load_command_class

import i3tasks
from i3tasks import cli, exceptions, maintenance, signals, types, urls, utils
from i3tasks.calls import keywords
from i3tasks.models import TaskGroup
from i3tasks.telemetry import EVENTS
from tests.support.doc_commands import PARSERS as OF_NO_PROJECT

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = ROOT / "docs" / "reference"
SOURCE = ROOT / "src" / "i3tasks"
EVENTS_TABLE = run_path(str(ROOT / "docs" / "events_table.py"))["table"]()
CODE = re.compile(r"`([^`]+)`")


def page(name: str) -> str:
    return (REFERENCE / f"{name}.md").read_text(encoding="utf-8")


def section(name: str, heading: str) -> str:
    """The part of the page `name` below the heading whose text is `heading`, up to the next one as high."""
    found = re.search(rf"^(#+) {re.escape(heading)}\n(.*?)(?=^#{{1,6}} |\Z)", page(name), re.MULTILINE | re.DOTALL)
    assert found, f"docs/reference/{name}.md needs the heading '## {heading}'"
    return found[2]


def rows(text: str) -> list[list[str]]:
    """The cells of every row of the tables in `text`, without the tables' heads."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in lines]
    return [row for number, row in enumerate(cells) if not row[0].startswith("---") and row[0].startswith("`")]


def first_cells(text: str) -> set[str]:
    """The names that stand as code in the first cells: `delay(*args)` is the name delay, `--days F` is --days."""
    return {re.split(r"[\s(]", name)[0].rpartition(".")[2] for row in rows(text) for name in CODE.findall(row[0])}


def directives(text: str) -> set[str]:
    """What autodoc is told to show: `i3tasks.Task` and, of its `:members:`, `i3tasks.Task.delay`."""
    shown = set()
    for kind, target, body in re.findall(r"^\.\. (\S+?):: ([\w.]+).*\n((?: {3}.*\n)*)", text, re.MULTILINE):
        shown.add(target)
        members = re.search(r":members: (.+)", body)
        shown |= {f"{target}.{name.strip()}" for name in members[1].split(",")} if members else set()
        if kind == "automodule" and ":members:\n" in body:
            left_out = re.search(r":exclude-members: (.+)", body)
            hidden = {name.strip() for name in left_out[1].split(",")} if left_out else set()
            shown |= {f"{target}.{name}" for name in public(import_module(target)) - hidden}
    return shown


def public(thing: Any) -> set[str]:
    """The public names that are defined in the module, or in the class and its bases of ours."""
    if hasattr(thing, "__all__"):
        return set(thing.__all__)
    if inspect.ismodule(thing):
        own = {name: value for name, value in vars(thing).items() if getattr(value, "__module__", "") == thing.__name__}
    else:
        own = {name: 0 for base in thing.__mro__ if base.__module__.startswith("i3tasks") for name in vars(base)}
    return {name for name in own if not name.startswith("_")}


def find_spec_of(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:  # its parent is no package
        return False


PAGES = [path.stem for path in sorted(REFERENCE.glob("*.md"))]
SHOWN = {name for stem in PAGES for name in directives(page(stem))}
TABLED = {stem: first_cells(page(stem)) for stem in PAGES}
HEADINGS = {name.strip("`") for stem in PAGES for name in re.findall(r"^#+ (.+)$", page(stem), re.MULTILINE)}


@pytest.mark.parametrize("name", sorted({*i3tasks.__all__, *utils.__all__, *maintenance.__all__}))
def test_every_public_name_has_an_entry(name: str) -> None:
    assert (
        name in HEADINGS
        or {f"i3tasks.{name}", f"i3tasks.maintenance.{name}"} & SHOWN
        or any(name in names for names in TABLED.values())
    )


@pytest.mark.parametrize("name", ["Task", "ChainHandle", "Signature", "chain", "group", "RetryPolicy", "TaskMetadata"])
def test_every_method_of_what_is_public_has_an_entry(name: str) -> None:
    """An attribute that `__init__` alone sets (`spec`, `call_options`) is for i3tasks, and not public."""
    cls = getattr(i3tasks, name)
    fields = {field.name for field in dataclasses.fields(cls)} if dataclasses.is_dataclass(cls) else set()
    shown = {item.rpartition(".")[2] for item in SHOWN if item.startswith(f"i3tasks.{name}.")}

    assert public(cls) - fields <= shown
    assert shown <= public(cls) | fields, "an entry of what is gone"


@pytest.mark.parametrize(("name", "heading"), [("Task", "Methods of a task"), ("ChainHandle", "ChainHandle")])
def test_what_every_method_returns_raises_and_costs_is_said(name: str, heading: str) -> None:
    documented = first_cells(section("calls", heading))

    assert public(getattr(i3tasks, name)) <= documented
    assert documented - {"task"} <= public(getattr(i3tasks, name)), "an entry of what is gone"


def test_every_method_of_a_group_has_an_entry() -> None:
    methods = {
        name
        for name, value in vars(TaskGroup).items()
        if getattr(value, "__module__", "") == "i3tasks.calls.task_group"
    }
    methods |= {name for name in ("create", "acreate") if hasattr(TaskGroup, name)}

    assert methods == first_cells(section("workflows", "TaskGroup"))


def test_every_option_of_a_task_has_an_entry() -> None:
    own = set(keywords.TaskKeywords.__annotations__)
    of_decorator = set(keywords.TaskDecoratorKeywords.__annotations__)

    assert first_cells(section("tasks", "Options of `@task`")) == own
    assert first_cells(section("tasks", "Options of `@TaskDecorator`")) == of_decorator - own


def test_every_option_of_using_has_an_entry() -> None:
    parameters = set(inspect.signature(i3tasks.Task.using).parameters) - {"self"}

    assert first_cells(section("calls", "Options of `using`")) == parameters


@pytest.mark.parametrize("name", ["TaskMetadata", "RetryPolicy", "Schedule"])
def test_every_field_has_a_row(name: str) -> None:
    where = {"TaskMetadata": "tasks", "RetryPolicy": "retries", "Schedule": "schedules"}[name]
    cls = getattr(i3tasks, name, None) or getattr(types, name)
    fields = {field.name for field in dataclasses.fields(cls) if not field.name.startswith("_")}

    assert fields <= first_cells(section(where, name))


def test_every_setting_has_an_entry() -> None:
    documented = first_cells(page("settings"))

    assert {field.name for field in dataclasses.fields(types.I3TasksSettings)} <= documented
    assert set(first_cells(section("settings", "PUBSUB_CONFIG"))) == set(i3tasks.conf._PUBSUB_KEYS)


@pytest.mark.parametrize(
    "name", sorted(name for name in public(types) if name.endswith("Queue") and name == getattr(types, name).__name__)
)
def test_every_field_of_a_queue_has_an_entry(name: str) -> None:
    assert first_cells(section("settings", name)) == {field.name for field in dataclasses.fields(getattr(types, name))}


@pytest.mark.parametrize("name", sorted(SHOWN))
def test_what_is_made_from_docstrings_has_one(name: str) -> None:
    """Sphinx leaves out what has none, in silence. The meaning of a dataclass's field is in a table."""
    module, *path = next(
        (".".join(parts[:count]), *parts[count:])
        for parts in [name.split(".")]
        for count in range(len(parts), 0, -1)
        if find_spec_of(".".join(parts[:count]))
    )
    *owners, last = path or [""]
    owner = reduce(getattr, owners, import_module(module))
    if last not in getattr(owner, "__dataclass_fields__", ()):
        assert inspect.getdoc(getattr(owner, last) if last else owner)


def options_of(name: str) -> set[str]:
    """The options of a command without those that Django gives to all; positional ones by their metavar."""
    if name in OF_NO_PROJECT:
        parser = OF_NO_PROJECT[name]()
    else:
        parser = load_command_class("i3tasks", cli.COMMANDS[name][0]).create_parser("i3tasks", name)
    of_django = argparse_of_django()._actions if name not in OF_NO_PROJECT else ()
    of_all = {option for action in of_django for option in action.option_strings} | {"--help"}
    names = (
        next((text for text in action.option_strings if text.startswith("--")), action.metavar)
        for action in parser._actions
    )
    return {str(option) for option in names if option not in of_all}


def argparse_of_django() -> argparse.ArgumentParser:
    from django.core.management.base import BaseCommand

    return BaseCommand().create_parser("manage.py", "any")


def test_every_management_command_is_one_of_the_command_line() -> None:
    written = {path.stem for path in (SOURCE / "management" / "commands").glob("[!_]*.py")}
    assert written == {command[0] for command in cli.COMMANDS.values()}


@pytest.mark.parametrize("name", [*OF_NO_PROJECT, *cli.COMMANDS])
def test_every_command_has_a_section_with_its_options_and_exit_codes(name: str) -> None:
    text = section("commands", f"`i3tasks {name}`")

    assert first_cells(text) == options_of(name)
    assert re.search(r"^Exit codes? ", text, re.MULTILINE)
    assert name in OF_NO_PROJECT or f"`{cli.COMMANDS[name][0]}`" in text


def test_no_section_describes_a_command_that_is_gone() -> None:
    described = set(re.findall(r"^## `i3tasks ([\w-]+)`$", page("commands"), re.MULTILINE))

    assert described == {*OF_NO_PROJECT, *cli.COMMANDS}


def test_every_check_has_an_entry() -> None:
    ids = {
        name
        for path in SOURCE.rglob("*.py")
        for name in re.findall(r'"(i3tasks\.[EWIC]\d{3})"', path.read_text("utf-8"))
    }
    documented = {name for row in rows(page("checks")) for name in CODE.findall(row[0])}

    assert documented == ids


@pytest.mark.parametrize("model", list(apps.get_app_config("i3tasks").get_models()), ids=lambda model: model.__name__)
def test_every_column_has_an_entry(model: Any) -> None:
    assert first_cells(section("models", model.__name__)) == {field.name for field in model._meta.concrete_fields}


def emitted() -> dict[str, set[str]]:
    """The events that the code emits, each with the fields that the calls name."""
    events: dict[str, set[str]] = {}
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "emit":
                name = node.args[0]
                either = [name.body, name.orelse] if isinstance(name, ast.IfExp) else [name]
                for item in either:
                    assert isinstance(item, ast.Constant), f"{path}:{node.lineno}: emit() takes the name itself"
                    events.setdefault(item.value, set()).update(word.arg for word in node.keywords if word.arg)
    return events


def test_every_event_is_declared_and_emitted() -> None:
    assert set(emitted()) | {"consumer_failed"} == set(EVENTS), "consumer_failed goes to the log alone"
    for name, fields in emitted().items():
        assert fields <= {*EVENTS[name].fields, *EVENTS[name].optional}, f"undeclared fields of {name}"


def test_the_table_of_events_is_made_from_the_catalogue() -> None:
    assert EVENTS_TABLE in page("events"), "run `python docs/events_table.py`"


def test_every_signal_has_an_entry_with_its_arguments() -> None:
    sent = {name: value.arguments for name, value in vars(signals).items() if isinstance(value, signals.TaskSignal)}
    documented = rows(section("signals", "Signals"))
    explained = {name for row in documented if len(row) == 2 for name in CODE.findall(row[0])}

    assert {CODE.findall(row[0])[0]: set(CODE.findall(row[2])) for row in documented if len(row) == 3} == {
        name: set(arguments) for name, arguments in sent.items()
    }
    assert explained == {name for arguments in sent.values() for name in arguments}


def test_every_error_has_an_entry() -> None:
    errors = {
        name
        for name, value in vars(exceptions).items()
        if inspect.isclass(value) and issubclass(value, exceptions.I3TasksError)
    }

    assert first_cells(page("errors")) == errors


def test_every_endpoint_has_an_entry() -> None:
    documented = {(CODE.findall(row[0])[0], CODE.findall(row[1])[0]) for row in rows(section("http", "HTTP endpoints"))}

    assert documented == {(str(pattern.pattern), pattern.name) for pattern in urls.urlpatterns}


def test_the_map_of_the_reference_leads_to_every_page() -> None:
    assert {f"{stem}.md" for stem in PAGES} - {"index.md"} == set(re.findall(r"\]\(([\w-]+\.md)\)", page("index")))


def test_every_option_of_the_django_backend_has_an_entry() -> None:
    from i3tasks.backend.options import BackendOptions
    from i3tasks.backend.tasks import OPTIONS

    names = {field.name for field in dataclasses.fields(BackendOptions)}

    assert first_cells(section("django-tasks", "The backend in TASKS")) - {"BACKEND", "QUEUES", "OPTIONS"} == names
    assert first_cells(section("django-tasks", "Options of a task")) == set(OPTIONS)


def test_every_helper_for_tests_has_an_entry() -> None:
    from i3tasks import testing

    named = re.findall(r"auto(?:function|class):: i3tasks\.testing\.(\w+)", page("testing"))

    assert sorted(named) == sorted(testing.__all__)
