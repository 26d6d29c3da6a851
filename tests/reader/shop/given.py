"""The names of the reader's code that the pages use and do not define."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

gateway = SimpleNamespace(is_down=False)


class CardDeclined(Exception):
    """Of the reader's own."""


class Manager:
    """Rows of a model of the reader's, without a database."""

    def __init__(self, *found: Any) -> None:
        self._found = {row.pk: row for row in found}

    def filter(self, **fields: Any) -> Manager:
        return self

    select_for_update = filter

    def get(self, pk: int) -> Any:
        return self._found[pk]

    def update_or_create(self, defaults: dict[str, Any], **fields: Any) -> tuple[Any, bool]:
        return None, True

    async def aupdate(self, **fields: Any) -> int:
        return 1


class Customer:
    def __init__(self) -> None:
        self.debits: list[int] = []

    def debit(self, total: int) -> None:
        self.debits.append(total)


class Payments:
    """Another service."""

    async def charge(self, order_id: int, idempotency_key: str) -> str:
        return f"order {order_id} is paid"


invoice = SimpleNamespace(pk=1, total=50, booked_at=None, customer=Customer(), save=lambda: None)


def read(path: str) -> list[str]:
    return [path]


def files_of(album: str) -> list[str]:
    return [f"{album}/1.jpg", f"{album}/2.jpg"]


EVERYWHERE: dict[str, Any] = {
    "Article": SimpleNamespace(objects=Manager()),
    "CardDeclined": CardDeclined,
    "Delivery": SimpleNamespace(objects=Manager()),
    "Invoice": SimpleNamespace(objects=Manager(invoice)),
    "files_of": files_of,
    "gateway": gateway,
    "invoice": invoice,
    "payments": Payments(),
    "paths": ["a.jpg", "b.jpg"],
    "read": read,
}
ON_PAGE: dict[str, dict[str, Any]] = {
    "docs/django-tasks.md": {"user": SimpleNamespace(pk=1)},
    "docs/reference/retries.md": {
        "bank": SimpleNamespace(charge=lambda order: SimpleNamespace(busy=False, closed=False))
    },
    "docs/workers.md": {"order": SimpleNamespace(id=7)},
    "docs/workflows.md": {"album": "summer", "folder": "texts", "order": 7, "url": "https://example.com/"},
}
