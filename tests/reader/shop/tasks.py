"""The tasks that the pages call and do not define."""

from __future__ import annotations

from typing import Any

from django.core import mail

from i3tasks import task
from shop import given


@task
async def greet(name: str) -> str:
    return f"Hello, {name}"


@task
def send_welcome(email: str) -> None:
    mail.send_mail("Welcome", "Hello", "shop@example.com", [email])


@task
async def send_email(recipient: str, subject: str) -> str:
    return f"{subject} to {recipient}"


@task
def send_receipt(order_id: int) -> None: ...


@task
def send_report(kind: str = "daily") -> str:
    return kind


@task
def refresh_prices(full: bool = True) -> bool:
    return full


@task
def log_sent() -> None: ...


@task
def update_statistics(kind: str) -> str:
    return kind


# ------------------------------------------------------------------------------------------------------ workflows


@task
async def fetch(source: str) -> str:
    return f"text of {source}"


@task
def parse(text: str) -> list[str]:
    return text.split()


@task
def store(words: list[str], table: str) -> str:
    return f"{len(words)} in {table}"


@task
def list_files(folder: str) -> str:
    return f"{folder}/a.txt"


@task
def count(source: str) -> int:
    return len(source)


@task
def report(parts: Any) -> str:
    return f"report of {parts}"


@task
def resize(path: Any) -> str:
    return f"{path}.small"


@task
def publish_album(album: str) -> str:
    return album


@task
def count_words(path: str) -> int:
    return len(path)


@task
def add_up(numbers: list[int]) -> int:
    return sum(numbers)


@task
def publish() -> None: ...


@task
def charge(order: int) -> str:
    if given.gateway.is_down:
        raise ConnectionError("the gateway does not answer")
    return f"order {order} is paid"


@task
def ship(order: int) -> None: ...


@task
def refund(execution_id: int) -> None: ...


@task
def tell_operators(execution_id: int) -> None: ...
