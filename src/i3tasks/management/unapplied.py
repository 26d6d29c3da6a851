"""Django's notice of unapplied migrations, for processes that stay.

Django imports all migrations of the project for it, which stay in memory. Here it is asked only if one may be missing.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Iterable, Iterator
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
        # Django says itself that there is no default database, into which it looks, or no such module of migrations.
        with suppress(ImproperlyConfigured, ImportError, ValueError):
            if recorded_migrations(DEFAULT_DB_ALIAS) >= set(_on_disk()):
                return
        super().check_migrations()


def _on_disk() -> Iterator[tuple[str, str]]:
    """The migrations of the project. A squashed one and those that it replaces count each, as they are recorded."""
    for config in apps.get_app_configs():
        for found in pkgutil.iter_modules(_places(config)):
            if not found.ispkg and found.name[0] not in "_~":  # the same that Django leaves out
                yield config.label, found.name


def _places(config: AppConfig) -> Iterable[str]:
    """The folders with the migrations of an app. Raises ImportError if the project names a package that is missing."""
    if config.label in settings.MIGRATION_MODULES:
        name = settings.MIGRATION_MODULES[config.label]
        if name is None:
            return ()
        if (spec := find_spec(name)) is None:
            raise ModuleNotFoundError(name)
    elif not hasattr(config.module, "__path__"):  # an app that is one file
        return ()
    else:
        spec = find_spec(f"{config.name}.migrations")
    return (spec and spec.submodule_search_locations) or ()
