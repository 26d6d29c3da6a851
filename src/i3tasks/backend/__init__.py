"""The backend of Django's tasks framework: `@task` of django.tasks, run by i3tasks.

    TASKS = {"default": {"BACKEND": "i3tasks.backend.PubSubBackend", "QUEUES": []}}

`django.tasks` comes with Django 6.0; with Django 5.2 the package django-tasks takes its place. See
docs/django-tasks.md.
"""

from . import signals
from .backend import PubSubBackend
from .declared import as_task, task_options
from .tasks import PubSubTask

signals.connect()

__all__ = ["PubSubBackend", "PubSubTask", "as_task", "task_options"]
