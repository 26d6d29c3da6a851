"""The changes that `i3tasks init` would make in a project."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

from django.core.exceptions import ImproperlyConfigured

from ..file_changes import FileChange, SourceText
from .editing import Refused, add_to_list, import_from

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
PUBSUB_CONFIG = {{"EMULATOR": True}}  # in production {{"PROJECT_ID": "my-project"}}
"""
SQLITE = """
# Web process and worker write side by side: let them wait for each other.
DATABASES["default"]["OPTIONS"] = {
    "transaction_mode": "IMMEDIATE",
    "timeout": 20,
    "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL",
}
"""


def plan(settings_name: str) -> tuple[list[FileChange], str]:
    """All changes, and the module of the first task. Raises ImproperlyConfigured with a sentence."""
    try:
        settings = import_module(settings_name)
    except ImportError as error:
        raise ImproperlyConfigured(f"The settings {settings_name!r} can't be imported: {error}. {QUESTION}") from error
    tasks = _first_tasks(settings, settings_name)
    try:
        changes = [_settings(settings, tasks), _urls(settings), _tasks(tasks)]
    except Refused as error:
        raise ImproperlyConfigured(f"{error} {QUESTION}") from error
    return [change for change in changes if change is not None], tasks.module


@dataclass(frozen=True, slots=True)
class FirstTasks:
    """The module for the first task, and whether i3tasks must be told of it because its package is no installed app."""

    module: str
    path: Path
    is_named: bool


def _first_tasks(settings: ModuleType, settings_name: str) -> FirstTasks:
    """In the first app that lies in this folder; without such, beside the settings."""
    for app in getattr(settings, "INSTALLED_APPS", ()):
        package = app.partition(".apps.")[0]
        folder = _folder_of(package)
        if folder is not None and folder.is_relative_to(Path.cwd()) and "site-packages" not in folder.parts:
            return FirstTasks(f"{package}.tasks", folder / "tasks.py", is_named=False)
    package = settings_name.partition(".")[0]
    folder = _folder_of(package)
    if folder is None or "." not in settings_name:
        raise ImproperlyConfigured(f"{settings_name!r} is no module of a package, so a task has no place. {QUESTION}")
    return FirstTasks(f"{package}.tasks", folder / "tasks.py", is_named=True)


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
    if "i3tasks" not in settings.INSTALLED_APPS and "i3tasks.apps.I3TasksConfig" not in settings.INSTALLED_APPS:
        after = add_to_list(after, "INSTALLED_APPS", ['"i3tasks"'])
    if not hasattr(settings, "I3TASKS"):
        arguments = [f'namespace="{_namespace(settings.__name__)}"', 'default_queue=PullQueue("default", "worker")']
        if tasks.is_named:
            arguments.append(f'task_modules=("{tasks.module}",)')
        after = after.rstrip("\n") + SETTINGS.format(arguments=", ".join(arguments))
        after = import_from(after, "i3tasks.types", ["I3TasksSettings", "PullQueue"])
    if _is_plain_sqlite(settings):
        after = after.rstrip("\n") + "\n" + SQLITE
    return FileChange(path, source, after) if after != source.text else None


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
    if "i3tasks.urls" in source.text:
        return None
    entries = ['path("i3/", include("i3tasks.urls"))']
    if "django.contrib.admin" in settings.INSTALLED_APPS:
        entries.insert(0, 'path("i3/board/", include("i3tasks.dashboard.urls"))')
    after = import_from(add_to_list(source.text, "urlpatterns", entries), "django.urls", ["include", "path"])
    return FileChange(path, source, after)


def _tasks(tasks: FirstTasks) -> FileChange | None:
    return None if tasks.path.exists() else FileChange(_inside(tasks.path), None, TASKS)


def _source(path: Path) -> SourceText:
    try:
        return SourceText.of(_inside(path))
    except (SyntaxError, UnicodeDecodeError) as error:
        raise Refused(f"{path} can't be read: {error}.") from error


def _inside(path: Path) -> Path:
    """The path, unless it or a link in it leads out of this folder."""
    if not path.resolve().is_relative_to(Path.cwd().resolve()):
        raise Refused(f"{path} lies outside of this folder.")
    return path
