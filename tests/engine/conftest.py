"""What tests with processes of their own share."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from tests.support.children import Children

QUICK = {"lease_seconds": 1.5, "heartbeat_seconds": 0.4, "task_retry_backoff_base_seconds": 0.2}


@pytest.fixture
def children(on_embedded: str, settings: Any) -> Iterator[Children]:
    """Processes on the embedded emulator, with short leases; none outlives the test."""
    settings.I3TASKS = replace(settings.I3TASKS, **QUICK)
    with Children(settings.PUBSUB_CONFIG, **QUICK).all_ended() as children:
        yield children
