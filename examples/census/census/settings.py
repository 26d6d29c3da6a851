"""Settings of the census. run.py sets the environment variables; each has a default for work by hand.

CENSUS_DATABASE       a postgresql:// URL or other connection string; without it, SQLite in CENSUS_DATA
CENSUS_DATA           folder of the SQLite database (default: .census in the current folder)
CENSUS_URL            address of the web process
CENSUS_NAMESPACE      first part of the names of topics and subscriptions
PUBSUB_EMULATOR_HOST  host:port of the Pub/Sub emulator
"""

import os
from pathlib import Path
from typing import Any

from i3tasks.types import I3TasksSettings, PullQueue

SECRET_KEY = "an example's: nothing here is secret"
DEBUG = False
ALLOWED_HOSTS = ["127.0.0.1", "localhost"]
USE_TZ = True
ROOT_URLCONF = "census.urls"
ASGI_APPLICATION = "census.asgi.application"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
INSTALLED_APPS = ["i3tasks", "census"]

CENSUS_URL = os.environ.get("CENSUS_URL", "http://127.0.0.1:8000")


def _sqlite() -> dict[str, Any]:
    folder = Path(os.environ.get("CENSUS_DATA", ".census"))
    return {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": str(folder / "census.sqlite3"),
        # Several processes write: they wait for the lock instead of failing with "database is locked".
        "OPTIONS": {
            "transaction_mode": "IMMEDIATE",
            "timeout": 20,
            "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL",
        },
    }


def _postgres(connection: str) -> dict[str, Any]:
    from psycopg.conninfo import conninfo_to_dict

    parts = conninfo_to_dict(connection)
    names = {"dbname": "NAME", "user": "USER", "password": "PASSWORD", "host": "HOST", "port": "PORT"}
    return {
        "ENGINE": "django.db.backends.postgresql",
        **{names[part]: value for part, value in parts.items() if part in names},
    }


_connection = os.environ.get("CENSUS_DATABASE", "")
DATABASES = {"default": {**(_postgres(_connection) if _connection else _sqlite()), "CONN_MAX_AGE": 60}}

I3TASKS = I3TasksSettings(
    namespace=os.environ.get("CENSUS_NAMESPACE", "census"),
    default_queue=PullQueue("default", "worker"),
)
PUBSUB_CONFIG = {"EMULATOR": True, "PROJECT_ID": "census"}

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"plain": {"format": "%(asctime)s %(levelname)s %(name)s %(message)s"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "plain"}},
    "root": {"handlers": ["stderr"], "level": "WARNING"},
    "loggers": {"i3tasks": {"level": "INFO"}},
}
