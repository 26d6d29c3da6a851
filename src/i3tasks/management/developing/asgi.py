"""The project's ASGI application for `i3tasks dev`: with static files while DEBUG is on, as `runserver` has them."""

import os
from importlib import import_module
from typing import Any

from django.apps import apps
from django.conf import settings
from django.contrib.staticfiles.handlers import ASGIStaticFilesHandler
from django.core.handlers.asgi import ASGIHandler

APP_VARIABLE = "I3TASKS_DEV_APP"
"""Names, for the web process, the application to serve: `module:attribute`."""


def load(name: str) -> Any:
    """The application that is called so."""
    module, _, attribute = name.partition(":")
    found = getattr(import_module(module), attribute)
    serves_files = settings.DEBUG and apps.is_installed("django.contrib.staticfiles")
    return ASGIStaticFilesHandler(found) if serves_files and isinstance(found, ASGIHandler) else found


def __getattr__(name: str) -> Any:
    if name != "application":
        raise AttributeError(name)
    wanted = os.environ[APP_VARIABLE]
    try:
        return load(wanted)
    except AttributeError as error:  # uvicorn would take it for one about this module, and say no more
        raise ImportError(f"{wanted!r} can't be loaded: {error}. Name it as module:attribute.") from error
