"""Tasks that run in a process of their own."""

import os
import time
from typing import Any

from i3tasks import task
from tests.shop.models import Order


class CardDeclined(Exception):
    def __init__(self, code: int, text: str) -> None:  # pickling this the plain way fails
        super().__init__(text)
        self.code = code


@task(isolation="process", bind=True)
def where(name: str, task_metadata: Any = None) -> dict[str, Any]:
    Order.objects.create(name=name, total="0")
    return {"pid": os.getpid(), "try_number": task_metadata.try_number}


@task(isolation="process", max_retries=0)
def decline() -> None:
    raise CardDeclined(7, "no money")


@task(isolation="process", max_retries=1)
def die() -> None:
    os._exit(3)


@task(isolation="process", timeout=0.5, max_retries=0)
def spin() -> None:
    while True:
        time.sleep(0.01)
