"""Findings that need Django to be set up: from checks, URLs, migrations, and installed packages."""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version

import django
from django.apps import apps
from django.core.checks import run_checks
from django.core.exceptions import ImproperlyConfigured
from django.db import DatabaseError, connections
from django.db.migrations.executor import MigrationExecutor
from django.urls import NoReverseMatch, reverse

from .findings import Finding

SETTINGS = "DJANGO_SETTINGS_MODULE"
ENDPOINTS = ("i3tasks-push", "i3tasks-beat", "i3tasks-health", "i3tasks-status")


def findings_of_project() -> list[Finding]:
    """The findings in the settings, the URLs, the database and the environment."""
    settings = os.environ.get(SETTINGS, "the settings")
    try:
        django.setup()
    except (ImproperlyConfigured, ImportError) as error:
        return [Finding(settings, f"Django does not start: {error}.", "Mend that first.")]
    if not apps.is_installed("i3tasks"):
        return [
            Finding(settings, "i3tasks is not installed.", 'Add "i3tasks" to INSTALLED_APPS, or run `i3tasks init`.')
        ]
    return [*_checks(settings), *_urls(), *_database(), *_environment()]


def _checks(settings: str) -> Iterator[Finding]:
    """i3tasks's own system checks, those of a deployment among them."""
    for message in run_checks(include_deployment_checks=True):
        if (message.id or "").startswith("i3tasks.") and not message.is_silenced():
            yield Finding(f"{settings} ({message.id})", message.msg, message.hint or "")


def _urls() -> Iterator[Finding]:
    missing = []
    for name in ENDPOINTS:
        try:
            reverse(name, args=[1] if name == "i3tasks-status" else [])
        except NoReverseMatch:
            missing.append(name)
    if missing:
        problem = f"The endpoints {', '.join(missing)} have no URL."
        yield Finding("urls", problem, 'Include them: path("i3/", include("i3tasks.urls")).')


def _database() -> Iterator[Finding]:
    from ...store.database import alias

    connection = connections[alias()]
    try:
        executor = MigrationExecutor(connection)
        targets = [node for node in executor.loader.graph.leaf_nodes() if node[0] == "i3tasks"]
        plan = executor.migration_plan(targets)
    except DatabaseError as error:
        yield Finding("database", f"It gives no answer: {error}", "Start it, and try again.")
        return
    if plan:
        names = ", ".join(migration.name for migration, _ in plan if migration.app_label == "i3tasks")
        yield Finding("database", f"Migrations are missing: {names}.", "Run `manage.py migrate`.")


def _environment() -> Iterator[Finding]:
    try:
        old = version("django-i3tasks")
    except PackageNotFoundError:
        return
    yield Finding("environment", f"django-i3tasks {old} is still installed.", "pip uninstall django-i3tasks")
