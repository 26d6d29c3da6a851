"""The check of what the board's pages need."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from django.apps import apps
from django.conf import settings as django_settings
from django.core.checks import CheckMessage, Tags, Warning, register
from django.urls import URLResolver, get_resolver
from django.utils.module_loading import import_string

from ..dashboard.navigation import NAMESPACE

BOARD_APPS = ("django.contrib.auth", "django.contrib.sessions", "django.contrib.messages", "django.contrib.staticfiles")
BOARD_MIDDLEWARE = (
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
)


@register(Tags.urls)  # which workers leave out: it imports all views of the project
def check_board(**_: Any) -> list[CheckMessage]:
    """The pages of the board have what they need, if a URL leads to them."""
    if not getattr(django_settings, "ROOT_URLCONF", None) or not _leads_to_board(get_resolver()):
        return []
    missing = [f"{name!r} in INSTALLED_APPS" for name in BOARD_APPS if not apps.is_installed(name)]
    missing += [f"{name!r} in MIDDLEWARE" for name in BOARD_MIDDLEWARE if not _has_middleware(name)]
    if not _finds_templates():
        missing.append("an entry of TEMPLATES with Django's backend and 'APP_DIRS': True")
    if not missing:
        return []
    message = f"A URL leads to the board of i3tasks, whose pages can't be shown without {', '.join(missing)}."
    return [Warning(message, hint="Add what is missing, or leave i3tasks.dashboard.urls out.", id="i3tasks.W011")]


def _leads_to_board(resolver: URLResolver) -> bool:
    """Whether the board is among these URLs. Its views are not imported, as `reverse` would."""
    inner = [one for one in resolver.url_patterns if isinstance(one, URLResolver)]
    return resolver.app_name == NAMESPACE or any(_leads_to_board(one) for one in inner)


def _has_middleware(name: str) -> bool:
    """Whether MIDDLEWARE has this class, or one that extends it."""
    if name in django_settings.MIDDLEWARE:
        return True
    wanted = import_string(name)
    for path in django_settings.MIDDLEWARE:
        with suppress(Exception):  # Django itself says that it can't be imported
            found = import_string(path)
            if isinstance(found, type) and issubclass(found, wanted):
                return True
    return False


def _finds_templates() -> bool:
    """Whether Django's backend looks into the folders of apps, or has loaders that the project chose."""
    entries: list[dict[str, Any]] = list(django_settings.TEMPLATES)
    for entry in entries:
        is_djangos = entry.get("BACKEND") == "django.template.backends.django.DjangoTemplates"
        if is_djangos and (entry.get("APP_DIRS") or "loaders" in entry.get("OPTIONS", {})):
            return True
    return False
