"""Tasks of Django's framework."""

from __future__ import annotations

import asyncio
from typing import Any

import django

from i3tasks import RetryPolicy
from i3tasks.backend import task_options
from tests.shop.models import Order

if django.VERSION >= (6, 0):
    from django.tasks import task
else:
    from django_tasks import task

AT_ONCE = RetryPolicy(max_retries=2, base_seconds=0)


@task
def multiply(left: int, right: int) -> int:
    return left * right


@task(priority=5)
async def amultiply(left: int, right: int) -> int:
    await asyncio.sleep(0)
    return left * right


@task(takes_context=True)
@task_options(retry=AT_ONCE)
def on_third_attempt(context: Any, name: str) -> list[Any]:
    if context.attempt < 3:
        raise ValueError(f"not on attempt {context.attempt}")
    return [name, context.attempt, str(context.task_result.id), len(context.task_result.errors)]


@task(takes_context=True)
async def its_attempt(context: Any) -> int:
    return context.attempt


@task
@task_options(max_retries=0)
def fails(message: str) -> None:
    raise LookupError(message)


@task
def returns_an_order() -> Any:
    return Order(name="x")


@task
def returns_what_json_lacks(kind: str) -> Any:
    return {"number as a key": {1: 2}, "not a number": [float("nan")], "NUL": "a\x00b", "surrogate": "\ud800"}[kind]


@task
@task_options(unique=True)
def only_one(number: int = 1) -> int:
    return number


@task
def give_back(value: Any) -> Any:
    return value


@task
@task_options(isolation="process", timeout=60)
def in_a_process(number: int) -> int:
    return number + 1


@task(queue_name="mail", backend="strict")
def mail(to: str) -> str:
    return to


@task(backend="immediate")
def elsewhere(number: int) -> int:
    return number


@task(takes_context=True)
def odd_names(context: Any, value: int, task_metadata: int) -> list[int]:
    return [context.attempt, value, task_metadata]


@task
def names_without_context(task_metadata: int) -> int:
    return task_metadata
