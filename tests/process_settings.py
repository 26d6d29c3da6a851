"""The test settings for processes that tests start; what a test changes comes through the environment, as JSON."""

import json
import os
from dataclasses import replace
from typing import Any

from i3tasks.types import PullQueue, PushQueue
from tests import settings as base
from tests.settings import *  # noqa: F403

CHANGES = "I3TASKS_TEST_CHANGES"

_given: dict[str, Any] = json.loads(os.environ.get(CHANGES, "{}"))
PUBSUB_CONFIG = {**base.PUBSUB_CONFIG, **_given.get("pubsub", {})}
_queues: list[PullQueue | PushQueue] = [PullQueue("heavy", "worker")]
if "push_endpoint" in _given:
    _queues.append(PushQueue("push", "push", _given["push_endpoint"]))
else:
    _queues.append(PushQueue("push", "push", "http://127.0.0.1:1/i3/tasks-push/"))
I3TASKS = replace(base.I3TASKS, other_queues=tuple(_queues), **_given.get("i3tasks", {}))
DATABASES = {
    alias: {**database, "ATOMIC_REQUESTS": True}
    for alias, database in {
        **base.DATABASES,
        "other": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"},
    }.items()
}
if "fault" in _given:  # where this process dies (see tests/faults/points.py)
    INSTALLED_APPS = [*base.INSTALLED_APPS, "tests.faults.points.PointsConfig"]
    I3TASKS_FAULT = _given["fault"]
