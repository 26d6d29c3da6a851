"""Django settings of the test suite, on SQLite or PostgreSQL (see tests/support/databases.py)."""

from importlib.util import find_spec

import django

from i3tasks.types import I3TasksSettings, PullQueue, PushQueue
from tests.support.databases import django_databases

SECRET_KEY = "for tests only"
DEBUG = False
USE_TZ = True
TIME_ZONE = "UTC"
ALLOWED_HOSTS = ["*"]
ROOT_URLCONF = "tests.urls"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
STATIC_URL = "static/"
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]

DATABASES = django_databases()

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "i3tasks",
    "tests.shop",
]
if find_spec("tasks_monitor"):  # a dashboard for any backend of Django's tasks, for Django 6
    INSTALLED_APPS.append("tasks_monitor")

MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]

I3TASKS = I3TasksSettings(
    namespace="test",
    default_queue=PullQueue("default", "worker"),
    other_queues=(
        # Nothing listens on port 1: a push that a test forgot to stop goes nowhere.
        PushQueue("push", "push", "http://127.0.0.1:1/i3/tasks-push/"),
        PullQueue("heavy", "worker"),
    ),
)
PUBSUB_CONFIG = {"EMULATOR": True, "HOST": "127.0.0.1:1", "PROJECT_ID": "test"}

_FRAMEWORK = "django.tasks" if django.VERSION >= (6, 0) else "django_tasks"
# Django's own tasks run here unless one says otherwise.
TASKS = {
    "default": {"BACKEND": "i3tasks.backend.PubSubBackend", "QUEUES": []},
    "strict": {
        "BACKEND": "i3tasks.backend.PubSubBackend",
        "QUEUES": ["default", "mail"],
        "OPTIONS": {"queues": {"mail": "heavy"}, "max_retries": 0},
    },
    "immediate": {
        "BACKEND": f"{_FRAMEWORK}.backends.immediate.ImmediateBackend",
    },
}
