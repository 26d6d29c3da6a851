"""The test settings for processes that tests start; what a test changes comes through the environment, as JSON."""

import json
import os
from dataclasses import replace
from typing import Any

from i3tasks.types import DatabaseQueue, PullQueue, PushQueue
from tests import settings as base
from tests.settings import *  # noqa: F403

CHANGES = "I3TASKS_TEST_CHANGES"

_given: dict[str, Any] = json.loads(os.environ.get(CHANGES, "{}"))
PUBSUB_CONFIG = {**base.PUBSUB_CONFIG, **_given.get("pubsub", {})}
BY_HAND = PushQueue("byhand", "web", "http://127.0.0.1:1/i3/tasks-push/", audience=_given.get("push_endpoint"))
"""A push queue whose messages never arrive, because tests send the requests, with the tokens of the other one."""
_queues: list[PullQueue | PushQueue | DatabaseQueue] = [PullQueue("heavy", "worker"), BY_HAND]
if "push_endpoint" in _given:
    _queues.append(PushQueue("push", "push", _given["push_endpoint"]))
else:
    _queues.append(PushQueue("push", "push", "http://127.0.0.1:1/i3/tasks-push/"))
if "database_queue" in _given:  # then there are no others
    base.I3TASKS = replace(base.I3TASKS, default_queue=DatabaseQueue(_given["database_queue"]))
    _queues = [DatabaseQueue(queue.queue_name) for queue in _queues]
I3TASKS = replace(base.I3TASKS, other_queues=tuple(_queues), **_given.get("i3tasks", {}))
DATABASES = {
    alias: {**database, "ATOMIC_REQUESTS": True, "CONN_MAX_AGE": _given.get("conn_max_age", 0)}
    for alias, database in {
        **base.DATABASES,
        "other": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"},
    }.items()
}
if "fault" in _given:  # where this process dies (see tests/faults/points.py)
    INSTALLED_APPS = [*base.INSTALLED_APPS, "tests.faults.points.PointsConfig"]
    I3TASKS_FAULT = _given["fault"]
# Lines that tests can search, whatever stderr is.
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "%(asctime)s %(levelname)s %(message)s"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
    "loggers": {"i3tasks": {"handlers": ["stderr"], "level": "INFO"}},
}
