"""The topic of a call, which its task or its queue names."""

from __future__ import annotations

from ..conf import Config
from .lookup import find


def topic_of(module_name: str, func_name: str, queue_name: str | None, config: Config) -> str:
    """Return the full name of a call's topic: that of its queue, unless the task names its own topic or project.

    Returns "" for a call on a DatabaseQueue, which workers find in the database. Raises UnknownQueueError.
    """
    spec = find(module_name, func_name)
    if spec is None:
        return config.queue(queue_name).topic
    own_topic = None if queue_name else spec.options.topic_name
    topic = own_topic or config.queue(queue_name).topic.rpartition("/")[2]
    if not topic:
        return ""
    return f"projects/{spec.options.project_id or config.pubsub.project_id}/topics/{topic}"
