"""The state of a test: nothing is published while it runs, and the clock is set back at its end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import Any

from django.test import override_settings

from ..broker.publisher import withholding
from ..conf import get_config
from .clock import reset_clock


def nothing_published() -> AbstractContextManager[None]:
    """Publish nothing while the block runs: calls wait as rows, for `drain()`."""
    return withholding()


@contextmanager
def eager() -> Iterator[None]:
    """Run each call at once where it is enqueued, as the setting `force_sync` does.

    The call is recorded as usual. Its retries follow at once, without their delays, and so do the next steps of chains
    and the callbacks of groups; `run_after` is not waited for. An error of a body is recorded, and not raised. `delay`
    raises I3TasksError in a coroutine: use `adrain()` there.
    """
    with override_settings(I3TASKS=replace(get_config().settings, force_sync=True)):
        yield


class TestMixin:
    """For Django's TestCase and TransactionTestCase without pytest: publishes nothing, and resets the clock.

    class SignupTests(TestMixin, TestCase): ...
    """

    def setUp(self) -> None:
        """Publish nothing until the test ends."""
        super().setUp()  # type: ignore[misc]
        case: Any = self
        case.enterContext(nothing_published())
        case.addCleanup(reset_clock)
