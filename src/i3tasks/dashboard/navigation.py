"""The addresses of the board's pages."""

from __future__ import annotations

from django.urls import reverse

NAMESPACE = "i3tasks-board"


def url(name: str, *args: object, **query: object) -> str:
    """The address of a page of the board."""
    return reverse(f"{NAMESPACE}:{name}", args=args, query=query or None)
