"""Settings that come from the environment, as containers have them.

SECRET_KEY            required
DB_HOST               a host, or the folder of a socket such as /cloudsql/PROJECT:REGION:INSTANCE; missing: SQLite
DB_PORT, DB_NAME, DB_USER, DB_PASSWORD
SQLITE_FILE           where SQLite's file is, without DB_HOST
GOOGLE_CLOUD_PROJECT  the project of Pub/Sub; missing: an emulator, at PUBSUB_HOST or started by the worker
PUBSUB_HOST           host:port of an emulator
SITE_URL              https://shop.example.com: the queue `web` is pushed there
PUSH_ACCOUNT          e-mail of the service account whose token pushes and beats carry
DRAIN_SECONDS         how long a worker that is asked to stop waits for what it runs; less than its platform waits
MONITORING_TOKEN      the bearer token of tasks-health/, tasks-status/ and tasks-metrics/
"""

from os import environ
from pathlib import Path
from urllib.parse import urlsplit

from i3tasks.types import I3TasksSettings, PullQueue, PushQueue, Schedule

SECRET_KEY = environ["SECRET_KEY"]
SITE_URL = environ.get("SITE_URL", "")
# Probes call the address of the pod or the instance.
ALLOWED_HOSTS = ["*"] if not SITE_URL else [urlsplit(SITE_URL).hostname or "", "localhost"]
CSRF_TRUSTED_ORIGINS = [SITE_URL] if SITE_URL else []
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
ROOT_URLCONF = "shop.urls"
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "i3tasks",
    "shop",
]
MIDDLEWARE = ["django.middleware.common.CommonMiddleware"]

if "DB_HOST" in environ:
    DATABASES = {
        "default": {
            "ENGINE": "django.db.backends.postgresql",
            "HOST": environ["DB_HOST"],
            "PORT": environ.get("DB_PORT", ""),
            "NAME": environ.get("DB_NAME", "shop"),
            "USER": environ.get("DB_USER", "shop"),
            "PASSWORD": environ.get("DB_PASSWORD", ""),
            "CONN_MAX_AGE": 60,
            "CONN_HEALTH_CHECKS": True,
        }
    }
else:
    DATABASES = {
        "default": {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": environ.get("SQLITE_FILE", Path(__file__).parents[1] / "shop.sqlite3"),
            "OPTIONS": {
                "transaction_mode": "IMMEDIATE",
                "timeout": 20,
                "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL",
            },
        }
    }

PROJECT = environ.get("GOOGLE_CLOUD_PROJECT")
PUBSUB_CONFIG = {"PROJECT_ID": PROJECT} if PROJECT else {"EMULATOR": True}
if not PROJECT and "PUBSUB_HOST" in environ:
    PUBSUB_CONFIG["HOST"] = environ["PUBSUB_HOST"]

I3TASKS = I3TasksSettings(
    namespace="shop",
    default_queue=PullQueue("default", "worker"),
    other_queues=(PushQueue("web", "push"),) if SITE_URL else (),
    endpoint=f"{SITE_URL}/i3/" if SITE_URL else None,
    service_account=environ.get("PUSH_ACCOUNT"),
    drain_seconds=float(environ.get("DRAIN_SECONDS", "25")),
    health_token=environ.get("MONITORING_TOKEN"),
    metrics=True,
    # Topics and subscriptions are made by Terraform or by `i3tasks ensure-pubsub`; an emulator begins empty.
    run_queue_create_command_on_startup=not PROJECT,
    schedules=(Schedule("shop.tasks", "count_orders", "*/5 * * * *", name="count-orders"),),
)
