"""The pytest plugin, which pytest loads by itself where i3tasks is installed.

In tests nothing is published, unless the ini option `i3tasks_publish` is true, or inside `worker()`; and `advance`
ends with its test.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare `i3tasks_publish`."""
    help_text = "publish the calls that tests enqueue to the broker of PUBSUB_CONFIG (default: false)"
    parser.addini("i3tasks_publish", help_text, type="bool", default=False)


@pytest.fixture(autouse=True)
def _i3tasks_in_tests(pytestconfig: pytest.Config) -> Iterator[None]:
    from django.apps import apps  # only now: pytest loads plugins before there are settings

    if not (apps.ready and apps.is_installed("i3tasks")):
        yield
        return
    from ..broker.publisher import withholding
    from ..store.pauses import known_pauses
    from .clock import reset_clock

    with withholding(not pytestconfig.getini("i3tasks_publish")):
        yield
    reset_clock()
    known_pauses.forget()
