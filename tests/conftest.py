"""The suite's command line option, and what every test may use."""

import os
import signal
import uuid
from collections.abc import Iterator
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings
from pytest_django.plugin import DjangoDbBlocker

from tests.support import databases

if TYPE_CHECKING:
    from tests.support.google_emulator import GoogleEmulator
    from tests.support.rigs import NotingPublisher


# Slowness says something about the machine only. CI looks at the same examples each time; elsewhere the search goes on.
hypothesis_settings.register_profile(
    "i3tasks",
    deadline=None,
    derandomize=bool(os.environ.get("CI")),
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
    folder = databases.scratch_folder()
    folder.__enter__()
    config.add_cleanup(lambda: folder.__exit__(None, None, None))


def pytest_report_header() -> str:
    return f"i3tasks: on {databases.chosen()}"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    reason = databases.missing()
    wrong_database = {"postgres": "sqlite", "sqlite": "postgres"}[databases.chosen()]
    for item in items:
        if reason:
            item.add_marker(pytest.mark.skip(reason=reason))
        if item.get_closest_marker(wrong_database):
            item.add_marker(pytest.mark.skip(reason=f"makes sense on {wrong_database} only"))


@pytest.fixture(scope="session")
def django_db_setup(django_db_setup: None, django_db_blocker: DjangoDbBlocker) -> Iterator[None]:
    """pytest-django's, and at the end no connection is left that would keep the test database from being dropped."""
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
    monkeypatch.setattr("i3tasks.outbox.get_publisher", lambda: publisher)
    monkeypatch.setattr("i3tasks.dispatcher.get_publisher", lambda: publisher)
    return publisher


@pytest.fixture(scope="session")
def embedded() -> Iterator[str]:
    """The address of an embedded emulator."""
    from i3tasks.emulator import EmulatorProcess

    with EmulatorProcess() as process:
        yield process.host_port


@pytest.fixture
def on_embedded(embedded: str, settings: Any) -> str:
    """Settings that use the embedded emulator, under a project that nobody used before. Gives the project's name."""
    project = f"test-{uuid.uuid4().hex[:10]}"
    settings.PUBSUB_CONFIG = {"EMULATOR": True, "HOST": embedded, "PROJECT_ID": project}
    return project


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the events of this process, as they happen."""
    from i3tasks import telemetry

    names: list[str] = []
    log = telemetry._logger.log

    def note(level: int, event: str, **facts: object) -> None:
        names.append(event)
        log(level, event, **facts)

    monkeypatch.setattr(telemetry, "_logger", SimpleNamespace(log=note))
    return names
