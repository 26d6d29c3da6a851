"""What a call takes along from where it is made."""

from __future__ import annotations

from typing import Any

from ..conf import get_config, queue_or_default


def travels_with(task: str, queue_name: str | None) -> dict[str, Any] | None:
    """What travels with a call of the task, as its row keeps it. With a tracer, this is its `create` span."""
    from ..telemetry.propagation import outgoing  # by calls: what only defines tasks reports nothing

    facts = {"task": task, "queue": queue_or_default(queue_name)}
    return outgoing(facts, get_config().settings.propagate_context)
