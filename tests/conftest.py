"""The suite's command line option, and what every test may use."""

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from pytest_django.plugin import DjangoDbBlocker

from tests.support import databases

if TYPE_CHECKING:
    from tests.support.google_emulator import GoogleEmulator


def pytest_addoption(parser: pytest.Parser) -> None:
    # Read by tests/support/databases.py, before this file is loaded; declared here so that pytest accepts and lists it.
    parser.addoption(
        "--db",
        choices=["sqlite", "postgres"],
        help="the database that the suite runs on (default: $I3TASKS_TEST_DB, else sqlite)",
    )


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
