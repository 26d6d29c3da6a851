"""The types of I3TASKS in `settings.py`. Importing this module loads neither models nor the Pub/Sub client.

    I3TASKS = I3TasksSettings(
        namespace="shop",
        default_queue=PullQueue("default", "worker"),
        other_queues=(PushQueue("mail", "web", "https://shop.example.com/i3/tasks-push/"),),
    )

Every value is frozen and validated when it is made: a mistake raises ImproperlyConfigured with a sentence that says
what to write instead. While Django imports the settings, it is raised when they are first used: `manage.py` shows the
sentence then, as a failed system check.
"""

from .queues import DatabaseQueue, PullQueue, PushQueue, Queue, Schedule
from .retention import Retention
from .settings import I3TasksSettings

__all__ = ["DatabaseQueue", "I3TasksSettings", "PullQueue", "PushQueue", "Queue", "Retention", "Schedule"]
