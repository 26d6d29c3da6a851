"""The suite's command line option, and what every test may use."""

from collections.abc import Iterator

import pytest
from pytest_django.plugin import DjangoDbBlocker

from tests.support import databases


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
