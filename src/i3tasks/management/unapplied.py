"""Django's notice of unapplied migrations, for processes that stay.

Django imports all migrations of the project for it, which stay in memory. Here it is asked only if one may be missing.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Iterator
from contextlib import suppress
from importlib.util import find_spec

from django.apps import AppConfig, apps
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand
from django.db import DEFAULT_DB_ALIAS

from ..store.database import recorded_migrations


class NoticingCommand(BaseCommand):
    """A command that begins with Django's notice if migrations of the project wait to be applied."""

    requires_migrations_checks = True

    def check_migrations(self) -> None:
        """Print the notice, if there is one to print."""
        with suppress(ImproperlyConfigured):  # there is no default database, which Django looks into
            if recorded_migrations(DEFAULT_DB_ALIAS) >= set(_on_disk()):
                return
        super().check_migrations()


def _on_disk() -> Iterator[tuple[str, str]]:
    """The migrations of the project. A squashed one and those that it replaces count each, as they are recorded."""
    for config in apps.get_app_configs():
        spec = find_spec(module) if (module := _package(config)) else None
        for found in pkgutil.iter_modules(spec.submodule_search_locations if spec else ()):
            if not found.ispkg and found.name[0] not in "_~":  # the same that Django leaves out
                yield config.label, found.name


def _package(config: AppConfig) -> str | None:
    module: str | None = settings.MIGRATION_MODULES.get(config.label, f"{config.name}.migrations")
    return module
