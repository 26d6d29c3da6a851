import json
import os

from django_i3tasks.types import I3TasksSettings, PullQueue

SECRET_KEY = "for a test only"
USE_TZ = True
ROOT_URLCONF = "shop.urls"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.sessions",
    "django_i3tasks",
    "shop",
]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
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
            ]
        },
    }
]
DATABASES = {"default": json.loads(os.environ["SHOP_DATABASE"])}
PUBSUB_CONFIG = {"EMULATOR": True, "HOST": os.environ["SHOP_PUBSUB"], "PROJECT_ID": "shop"}
I3TASKS = I3TasksSettings(
    namespace=os.environ["SHOP_NAMESPACE"],
    default_queue=PullQueue("default", "worker"),
    other_queues=(),
    schedules=(),
)
