"""The changes that `i3tasks init` would make in a project."""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from stat import S_IWGRP, S_IWOTH, S_IWUSR
from types import ModuleType
from typing import Any

from django.apps import AppConfig
from django.core.exceptions import ImproperlyConfigured

from ..file_changes import FileChange, SourceText
from .editing import add_to_list, import_from

QUESTION = "Write it by hand: docs/quickstart.md, or run this in the folder of manage.py."
TASKS = '''"""The tasks of this app. i3tasks imports the `tasks` module of each installed app."""

from i3tasks import task


@task
async def greet(name: str) -> str:
    return f"Hello, {name}"
'''
SETTINGS = """

# Background tasks, by i3tasks.
I3TASKS = I3TasksSettings({arguments})
"""
PUBSUB = """PUBSUB_CONFIG = {"EMULATOR": True}  # in production {"PROJECT_ID": "my-project"}
"""
SQLITE = """
# Web process and worker write side by side: let them wait for each other.
DATABASES["default"]["OPTIONS"] = {
    "transaction_mode": "IMMEDIATE",
    "timeout": 20,
    "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL",
}
"""


class Refused(Exception):
    """The project can't be changed safely. The text says why."""


def plan(settings_name: str) -> tuple[list[FileChange], FirstTasks]:
    """All changes, and where the first task stands. Raises ImproperlyConfigured with a sentence."""
    try:
        settings = import_module(settings_name)
    except Exception as error:  # settings may raise anything, such as KeyError for a variable that is not set
        raise ImproperlyConfigured(
            f"The settings {settings_name!r} can't be imported: {type(error).__name__}: {error}. {QUESTION}"
        ) from error
    tasks = _first_tasks(settings, settings_name)
    try:
        changes = [_settings(settings, tasks), _urls(settings), _tasks(tasks)]
    except Refused as error:
        raise ImproperlyConfigured(f"{error} {QUESTION}") from error
    return [change for change in changes if change is not None], tasks


@dataclass(frozen=True, slots=True)
class FirstTasks:
    """The module for the first task, and whether i3tasks must be told of it because its package is no installed app."""

    module: str
    path: Path
    is_named: bool
    was_there: bool
    """The module is the project's own: no first task is written."""


def _first_tasks(settings: ModuleType, settings_name: str) -> FirstTasks:
    """In the first app that lies in this folder; without such, beside the settings."""
    for package in map(_package_of, getattr(settings, "INSTALLED_APPS", ())):
        folder = _folder_of(package)
        if folder is not None and folder.is_relative_to(Path.cwd()) and "site-packages" not in folder.parts:
            return _tasks_in(package, folder, is_named=False)
    package = settings_name.partition(".")[0]
    folder = _folder_of(package)
    if folder is None or "." not in settings_name:
        raise ImproperlyConfigured(f"{settings_name!r} is no module of a package, so a task has no place. {QUESTION}")
    return _tasks_in(package, folder, is_named=True)


def _tasks_in(package: str, folder: Path, is_named: bool) -> FirstTasks:
    path = folder / "tasks.py"
    was_there = path.exists() or (folder / "tasks").is_dir()
    return FirstTasks(f"{package}.tasks", path, is_named, was_there)


def _package_of(app: str) -> str:
    """The package of an entry of INSTALLED_APPS, which may name a class: `shop.apps.ShopConfig`."""
    try:
        return AppConfig.create(app).name
    except Exception:  # the app's own code runs; what is wrong with it, `manage.py check` says
        return app


def _folder_of(package: str) -> Path | None:
    try:
        spec = find_spec(package)
    except (ImportError, ValueError):
        return None
    locations = None if spec is None else spec.submodule_search_locations
    return Path(next(iter(locations))).resolve() if locations else None


def _settings(settings: ModuleType, tasks: FirstTasks) -> FileChange | None:
    path = Path(str(settings.__file__))
    source = _source(path)
    after = source.text
    if not _has_app(vars(settings)):
        after = add_to_list(after, "INSTALLED_APPS", ['"i3tasks"'])
    if not hasattr(settings, "I3TASKS"):
        arguments = [f'namespace="{_namespace(settings.__name__)}"', 'default_queue=PullQueue("default", "worker")']
        if tasks.is_named:
            arguments.append(f'task_modules=("{tasks.module}",)')
        after = after.rstrip("\n") + SETTINGS.format(arguments=", ".join(arguments))
        after += "" if hasattr(settings, "PUBSUB_CONFIG") else PUBSUB
        after = import_from(after, "i3tasks.types", ["I3TasksSettings", "PullQueue"])
    if _is_plain_sqlite(settings):
        after = after.rstrip("\n") + "\n" + SQLITE
    if after == source.text:
        return None
    _try_out(settings, after)
    return FileChange(path, source, after)


def _has_app(settings: Mapping[str, Any]) -> bool:
    return bool({"i3tasks", "i3tasks.apps.I3TasksConfig"} & set(settings.get("INSTALLED_APPS", ())))


def _try_out(settings: ModuleType, source: str) -> None:
    """Run the changed settings. Raises Refused where they fail, or something below the list sets it once more."""
    names = {name: getattr(settings, name) for name in ("__name__", "__package__", "__file__", "__spec__")}
    try:
        exec(compile(source, str(settings.__file__), "exec", dont_inherit=True), names)
    except Exception as error:
        raise Refused(f"With i3tasks added, the settings would fail: {type(error).__name__}: {error}.") from error
    if not _has_app(names):
        raise Refused("INSTALLED_APPS is set once more below, so i3tasks added to it would have no effect.")


def _namespace(module: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", module.partition(".")[0].lower()).strip("-") or "project"


def _is_plain_sqlite(settings: ModuleType) -> bool:
    database = getattr(settings, "DATABASES", {}).get("default", {})
    return database.get("ENGINE") == "django.db.backends.sqlite3" and not database.get("OPTIONS")


def _urls(settings: ModuleType) -> FileChange | None:
    """The endpoints, and the board where the admin's login is there for it."""
    name = getattr(settings, "ROOT_URLCONF", None)
    spec = find_spec(name) if name else None
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin)
    source = _source(path)
    if any(
        isinstance(node, ast.Constant) and node.value == "i3tasks.urls" for node in ast.walk(ast.parse(source.text))
    ):
        return None
    entries = ['path("i3/", include("i3tasks.urls"))']
    if "django.contrib.admin" in settings.INSTALLED_APPS:
        entries.insert(0, 'path("i3/board/", include("i3tasks.dashboard.urls"))')
    after = import_from(add_to_list(source.text, "urlpatterns", entries), "django.urls", ["include", "path"])
    return FileChange(path, source, after)


def _tasks(tasks: FirstTasks) -> FileChange | None:
    return None if tasks.was_there else FileChange(_inside(tasks.path), None, TASKS)


def _source(path: Path) -> SourceText:
    """The file's text, which is valid Python."""
    try:
        source = SourceText.of(_inside(path))
        ast.parse(source.text)
        return source
    except (SyntaxError, UnicodeDecodeError) as error:
        raise Refused(f"{path} can't be read: {error}.") from error


def _inside(path: Path) -> Path:
    """The path, unless it or a link in it leads out of this folder, or may not be written to."""
    target = path.resolve()
    if not target.is_relative_to(Path.cwd().resolve()):
        raise Refused(f"{path} lies outside of this folder.")
    if target.exists() and not target.stat().st_mode & (S_IWUSR | S_IWGRP | S_IWOTH):
        raise Refused(f"{path} is read-only.")
    if not os.access(target if target.exists() else target.parent, os.W_OK):
        raise Refused(f"{path} may not be written by this user.")
    return path
