"""Tasks that leave a row for every time their body begins. Not discovered, like hostile.py."""

import asyncio
import os
import time
from typing import Any

from i3tasks import task
from tests.shop.models import Run

MANY = 50  # retries, so that no number of kills makes an execution fail


def _fields(name: str, metadata: Any) -> dict[str, Any]:
    return {"name": name, "try_id": metadata.task_execution_try_id, "process_id": os.getpid()}


@task(bind=True, max_retries=MANY)
async def work(name: str, seconds: float = 0.02, task_metadata: Any = None) -> str:
    await Run.objects.acreate(**_fields(name, task_metadata))
    await asyncio.sleep(seconds)
    return name


@task(bind=True, max_retries=MANY)
async def slow_at_first(name: str, seconds: float, task_metadata: Any = None) -> str:
    """Long enough to be killed in the middle of, and seldom twice."""
    await Run.objects.acreate(**_fields(name, task_metadata))
    if task_metadata.try_number == 1:
        await asyncio.sleep(seconds)
    return name


@task(bind=True, max_retries=MANY)
def work_in_thread(name: str, seconds: float = 0.02, task_metadata: Any = None) -> str:
    Run.objects.create(**_fields(name, task_metadata))
    time.sleep(seconds)
    return name


@task(bind=True, max_retries=MANY, queue_name="push")
async def work_pushed(name: str, seconds: float = 0.02, task_metadata: Any = None) -> str:
    await Run.objects.acreate(**_fields(name, task_metadata))
    await asyncio.sleep(seconds)
    return name


@task(bind=True, max_retries=2)
async def die(name: str, task_metadata: Any = None) -> None:
    """Takes its worker with it."""
    await Run.objects.acreate(**_fields(name, task_metadata))
    os._exit(9)


@task(bind=True, max_retries=MANY)
async def die_once(name: str, task_metadata: Any = None) -> str:
    """Takes its first worker with it."""
    await Run.objects.acreate(**_fields(name, task_metadata))
    if task_metadata.try_number == 1:
        os._exit(9)
    return name
