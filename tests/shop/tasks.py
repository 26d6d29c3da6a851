"""Tasks of the test suite's shop: one of each kind."""

import asyncio
from typing import Any

from i3tasks import task
from tests.shop.models import Order


@task
def add(left: int, right: int) -> int:
    return left + right


@task
async def aadd(left: int, right: int) -> int:
    return left + right


@task
def place_order(name: str, total: str) -> int:
    order, _ = Order.objects.update_or_create(name=name, defaults={"total": total})
    return order.pk


@task
async def aplace_order(name: str, total: str) -> int:
    order, _ = await Order.objects.aupdate_or_create(name=name, defaults={"total": total})
    return order.pk


@task(max_retries=1)
def fail(message: str = "no") -> None:
    raise ValueError(message)


@task(max_retries=0)
async def afail(message: str = "no") -> None:
    raise ValueError(message)


@task
async def nap(seconds: float) -> float:
    """A body that takes time; what tests of concurrency measure, never a way to wait."""
    await asyncio.sleep(seconds)
    return seconds


@task(bind=True)
def describe(value: int, task_metadata: Any = None) -> dict[str, Any]:
    return {"value": value, "try_number": task_metadata.try_number, "queue": task_metadata.queue_name}


@task(queue_name="heavy")
def crunch(numbers: list[int]) -> int:
    return sum(numbers)


@task(queue_name="push")
async def pushed(value: str) -> str:
    return value
