"""What a call takes along from where it is made."""

from __future__ import annotations

from typing import Any

from ..conf import get_config


def travels_with(task: str, queue_name: str | None) -> dict[str, Any] | None:
    """What travels with a call of the task, as its row keeps it. With a tracer, this is its `create` span."""
    from ..telemetry.propagation import outgoing  # by calls: what only defines tasks reports nothing

    settings = get_config().settings
    facts = {"task": task, "queue": queue_name or settings.default_queue.queue_name}
    return outgoing(facts, settings.propagate_context)
