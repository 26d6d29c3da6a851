"""A bug, to show that a failure is replayed: a plugin of pytest by which late news of a publish undoes what is newer.

PYTEST_ADDOPTS="-p tests.engine.simulation.broken" python -m pytest tests/engine/test_simulation.py
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any


def pytest_collection_finish() -> None:
    from i3tasks.models import TaskExecutionTry
    from i3tasks.store import dispatching

    unclaimed = dispatching._unclaimed

    def credulous(refs: Sequence[Any], *rest: Any) -> list[TaskExecutionTry]:
        now = dict(TaskExecutionTry.objects.values_list("pk", "dispatch_at"))
        return unclaimed([replace(ref, dispatch_at=now[ref.try_id] or ref.dispatch_at) for ref in refs], *rest)

    dispatching._unclaimed = credulous
