"""The Django app."""

from __future__ import annotations

import os
from importlib import import_module

from django.apps import AppConfig


class I3TasksConfig(AppConfig):
    """Finds the project's tasks at start-up. Nothing here touches the network or the database."""

    name = "i3tasks"
    label = "i3tasks"
    verbose_name = "i3tasks"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        for module in ("checks", "canvas"):  # which register their checks, and TaskGroup's methods
            import_module(f"{self.name}.{module}")
        from .conf import EMULATOR_HOST_VARIABLE, get_config
        from .registry import discover

        pubsub = get_config().pubsub
        if pubsub.host is not None:  # for the project's own Pub/Sub clients
            os.environ[EMULATOR_HOST_VARIABLE] = pubsub.host
        discover()
