"""Settings of the workflows. run.py sets WORKFLOWS_DATA, the folder of the database, and PUBSUB_EMULATOR_HOST."""

import os
from pathlib import Path

from i3tasks.types import I3TasksSettings, PullQueue, Schedule

SECRET_KEY = "an example's: nothing here is secret"
DEBUG = False
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
INSTALLED_APPS = ["i3tasks", "workflows"]

DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": str(Path(os.environ.get("WORKFLOWS_DATA", ".")) / "workflows.sqlite3"),
        "OPTIONS": {
            "transaction_mode": "IMMEDIATE",
            "timeout": 20,
            "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL",
        },
    }
}

I3TASKS = I3TasksSettings(
    namespace="workflows",
    default_queue=PullQueue("default", "worker"),
    schedules=(Schedule("workflows.tasks", "strike", "* * * * *", ["the clock"], {}),),
)
PUBSUB_CONFIG = {"EMULATOR": True, "PROJECT_ID": "workflows"}

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"stderr": {"class": "logging.StreamHandler"}},
    "root": {"handlers": ["stderr"], "level": "WARNING"},
    "loggers": {"i3tasks": {"level": "INFO"}},
}
