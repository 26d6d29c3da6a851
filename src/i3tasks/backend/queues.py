"""Names of queues: those that Django's tasks name, and those of I3TASKS."""

from __future__ import annotations

from collections.abc import Mapping

from ..conf import get_config
from .framework import DEFAULT_TASK_QUEUE_NAME


def own_name(name: str, aliases: Mapping[str, str]) -> str | None:
    """The queue of I3TASKS that a task's `queue_name` stands for; None if there is none.

    "default", which tasks have that name no queue, is the default queue of I3TASKS, unless one has that name.
    """
    name = aliases.get(name, name)
    config = get_config()
    if name in config.queues:
        return name
    return config.settings.default_queue.queue_name if name == DEFAULT_TASK_QUEUE_NAME else None
