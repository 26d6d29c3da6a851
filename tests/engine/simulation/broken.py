"""A bug, to show that a failure is replayed: a plugin of pytest by which what is not due yet is leased.

PYTEST_ADDOPTS="-p tests.engine.simulation.broken" python -m pytest tests/engine/test_simulation.py
"""

from typing import Any


def pytest_collection_finish() -> None:
    from i3tasks.store import leases
    from i3tasks.store.refs import Refusal

    judge = leases._judge

    def hasty(*args: Any) -> Refusal | None:
        refusal = judge(*args)
        return None if refusal is Refusal.NOT_DUE else refusal

    leases._judge = hasty
