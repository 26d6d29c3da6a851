"""The public face: its names are pinned, and importing it, or starting Django with it, touches nothing."""

import importlib
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import i3tasks

PINNED = {
    "RESULT",
    "ChainHandle",
    "I3TasksError",
    "PermanentError",
    "Retry",
    "RetryPolicy",
    "ScheduleError",
    "Signature",
    "Snooze",
    "Task",
    "TaskDecorator",
    "TaskMetadata",
    "adelete_schedule",
    "aschedule_task",
    "chain",
    "delete_schedule",
    "group",
    "schedule_task",
    "task",
}


def test_the_public_names_are_pinned() -> None:
    assert set(i3tasks.__all__) == PINNED
    assert len(i3tasks.__all__) == len(PINNED), "each once"


@pytest.mark.parametrize("name", sorted(i3tasks.__all__))
def test_every_public_name_is_there_and_listed(name: str) -> None:
    assert getattr(i3tasks, name) is getattr(importlib.import_module(f"i3tasks.{i3tasks._HOMES[name]}"), name)
    assert name in dir(i3tasks)


def test_another_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'i3tasks' has no attribute 'tusk'"):
        i3tasks.tusk  # noqa: B018


def test_no_submodule_bears_the_name_of_a_public_object() -> None:
    folder = Path(str(i3tasks.__file__)).parent
    modules = {path.stem for path in folder.iterdir() if path.suffix == ".py" or path.is_dir()}
    assert not modules & set(i3tasks.__all__)


def test_documented_names_of_django_i3tasks_are_where_they_were() -> None:
    from i3tasks.utils import TaskDecorator

    assert TaskDecorator is i3tasks.TaskDecorator


def run(code: str) -> str:
    """The output of a fresh interpreter."""
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], cwd=root, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("name", ["i3tasks", "i3tasks.types", "i3tasks.conf"])
def test_importing_it_loads_neither_models_nor_the_pubsub_client(name: str) -> None:
    loaded = run(f"import {name}, sys; print(*sys.modules)").split()
    heavy = ("django.db.models", "django.apps.registry", "google", "grpc", "i3tasks.models", "structlog", "asgiref")
    allowed = {"django.apps.registry", "asgiref"} if name == "i3tasks.conf" else set()
    assert not [
        module for module in loaded if module.startswith(heavy) and not module.startswith(tuple(allowed) or "-")
    ]


def test_checking_a_project_loads_nothing_that_only_running_tasks_needs() -> None:
    """`manage.py check`, and each process that only defines tasks, pays for what it uses."""
    code = """
        import os, sys
        os.environ["DJANGO_SETTINGS_MODULE"] = "tests.process_settings"
        from django.conf import settings
        from django.core.management import execute_from_command_line
        settings.TASKS = {}  # Django 6 makes each backend of it for a check, and ours runs tasks
        execute_from_command_line(["manage.py", "check"])
        print("loaded", *sys.modules)
    """
    loaded = run(code).partition("loaded")[2].split()
    kinds = ("grpc", "google.", "structlog", "croniter", "anyio", "prometheus_client", "opentelemetry", "uvicorn")
    ours = ("engine.executor", "engine.worker", "store.writer", "store.settle", "store.search", "emulator", "telemetry")
    calls = ("calls.options", "calls.canvas", "store.enqueue", "store.lock_timeout", "admin.forms")
    pages = ("dashboard.overview", "dashboard.acting", "views.push", "views.monitoring")
    heavy = (*kinds, *(f"i3tasks.{name}" for name in (*ours, *calls, *pages)))
    assert "i3tasks.models" in loaded
    assert "i3tasks.admin.executions" in loaded
    assert [module for module in loaded if module.startswith(heavy)] == []


def test_settings_can_be_written_before_django_is_set_up() -> None:
    assert run("from i3tasks.types import *; print(I3TasksSettings(namespace='shop').namespace)") == "shop"


# Everything that would leave the process raises: sockets, and Django's database connections.
GUARD = """
    import os, socket
    os.environ["DJANGO_SETTINGS_MODULE"] = "tests.settings"
    os.environ["I3TASKS_TEST_DB"] = "sqlite"
    def refuse(*args, **kwargs):
        raise AssertionError("start-up touched the network or the database")
    for name in ("connect", "connect_ex", "bind", "sendto"):
        setattr(socket.socket, name, refuse)
    socket.create_connection = socket.getaddrinfo = refuse
    from django.db.backends.base.base import BaseDatabaseWrapper
    BaseDatabaseWrapper.connect = refuse
    import django
"""


def test_ready_touches_neither_network_nor_database_and_starts_no_thread() -> None:
    out = run(
        GUARD
        + """
    import threading
    django.setup()
    from django.core.checks import run_checks
    from i3tasks.registry import find
    assert find("tests.shop.tasks", "add"), "tasks were discovered"
    assert not [item for item in run_checks(databases=[]) if item.id and item.id.startswith("i3tasks.E")]
    print(threading.active_count())
    """
    )
    assert out == "1"


def test_a_task_called_plainly_needs_nothing_either() -> None:
    assert run(GUARD + "    django.setup()\n    from tests.shop.tasks import add\n    print(add(1, 2))") == "3"
