"""The suite's command line option, and what every test may use."""

import os
import signal
import uuid
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings
from pytest_django.plugin import DjangoDbBlocker

from tests.support import databases, exploring

if TYPE_CHECKING:
    from tests.support.google_emulator import GoogleEmulator
    from tests.support.rigs import NotingPublisher


# Slowness says something about the machine only. The examples are the same each time, unless I3TASKS_EXAMPLES asks for
# new ones.
hypothesis_settings.register_profile(
    "i3tasks",
    deadline=None,
    derandomize=not exploring.EXPLORES,
    max_examples=exploring.examples(100),
    print_blob=exploring.EXPLORES,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
hypothesis_settings.load_profile("i3tasks")


def pytest_addoption(parser: pytest.Parser) -> None:
    # Read by tests/support/databases.py, before this file is loaded; declared here so that pytest accepts and lists it.
    parser.addoption(
        "--db",
        choices=["sqlite", "postgres"],
        help="the database that the suite runs on (default: $I3TASKS_TEST_DB, else sqlite)",
    )


def pytest_configure(config: pytest.Config) -> None:
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # Shells start what runs in the background so, and children would inherit it: some are to end on Ctrl-C.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:  # of nohup: children are to hear it, and this run is not
        signal.signal(signal.SIGHUP, lambda number, frame: None)
    folder = databases.scratch_folder()
    folder.__enter__()
    config.add_cleanup(lambda: folder.__exit__(None, None, None))


def pytest_report_header() -> str:
    return f"i3tasks: on {databases.chosen()}"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    reason = databases.missing()
    wrong_database = {"postgres": "sqlite", "sqlite": "postgres"}[databases.chosen()]
    for item in items:
        if exploring.EXPLORES and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(600 * exploring.MULTIPLIER))
        if reason:
            item.add_marker(pytest.mark.skip(reason=reason))
        if item.get_closest_marker(wrong_database):
            item.add_marker(pytest.mark.skip(reason=f"makes sense on {wrong_database} only"))


@pytest.fixture(scope="session")
def django_db_setup(django_db_setup: None, django_db_blocker: DjangoDbBlocker) -> Iterator[None]:
    """pytest-django's. The database is emptied in less time than by Django, and at the end no connection is left that
    would keep it from being dropped."""
    from django.test import TransactionTestCase

    from tests.support.emptying import empty_databases

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TransactionTestCase, "_fixture_teardown", empty_databases)
        yield
    with django_db_blocker.unblock():
        databases.end_other_connections()


@pytest.fixture(scope="session")
def google_emulator() -> Iterator["GoogleEmulator"]:
    """Google's own Pub/Sub emulator. Missing, it skips on a newcomer's machine and fails under CI."""
    from tests.support.google_emulator import GoogleEmulator

    if not GoogleEmulator.available():
        reason = "Google's Pub/Sub emulator is not installed (gcloud components install pubsub-emulator)"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    emulator = GoogleEmulator()
    emulator.start()
    yield emulator
    emulator.stop()


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> "NotingPublisher":
    """A publisher that only notes what it is given."""
    from tests.support.rigs import NotingPublisher

    publisher = NotingPublisher()
    monkeypatch.setattr("i3tasks.engine.outbox.get_publisher", lambda: publisher)
    monkeypatch.setattr("i3tasks.engine.dispatcher.get_publisher", lambda: publisher)
    return publisher


@pytest.fixture(scope="session")
def embedded() -> Iterator[str]:
    """The address of an embedded emulator."""
    from i3tasks.emulator import EmulatorProcess

    with EmulatorProcess() as process:
        yield process.host_port


@pytest.fixture
def on_embedded(embedded: str, settings: Any) -> str:
    """Settings that use the embedded emulator, under a project that was never used before. Gives the project's name."""
    project = f"test-{uuid.uuid4().hex[:10]}"
    settings.PUBSUB_CONFIG = {"EMULATOR": True, "HOST": embedded, "PROJECT_ID": project}
    return project


@pytest.fixture
def pushed_by_default(settings: Any) -> None:
    """The default queue is pushed, so the endpoint runs its tries."""
    from i3tasks.types import PushQueue

    queue = PushQueue("default", "web", "http://127.0.0.1:1/i3/tasks-push/")
    settings.I3TASKS = replace(settings.I3TASKS, default_queue=queue)


@pytest.fixture(autouse=True)
def strict_events(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An event that is not in the catalogue, or has other fields than are declared, fails the test."""
    from i3tasks.telemetry import bus

    violations: list[str] = []
    monkeypatch.setattr(bus, "violations", violations)
    yield
    assert not violations


@pytest.fixture(autouse=True)
def nothing_seen_in_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """What one test's claims saw wait must not decide with which statement the next one's begin."""
    from i3tasks.store.priority import last_look

    monkeypatch.setattr(last_look, "are_any", False)


@pytest.fixture(autouse=True)
def grpc_fork_support() -> None:
    """What a worker's command sets for its process must not reach the processes that later tests start."""
    os.environ.pop("GRPC_ENABLE_FORK_SUPPORT", None)


@pytest.fixture
def without_django_tasks() -> Iterator[None]:
    """Nothing listens for the signals of Django's tasks, which the backend sends once any test has imported it."""
    from i3tasks.backend import signals as bridge
    from i3tasks.signals import task_finished, task_started

    task_started.disconnect(bridge._send_started)
    task_finished.disconnect(bridge._send_finished)
    yield
    bridge.connect()


@pytest.fixture
def events() -> Iterator[list[str]]:
    """The names of the events of this process, as they happen."""
    from i3tasks.telemetry import subscribe

    names: list[str] = []
    unsubscribe = subscribe(lambda event, facts: names.append(event.name))
    yield names
    unsubscribe()
