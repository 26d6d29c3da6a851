"""Tasks whose calls can be counted, for tests of workflows."""

from typing import Any

from i3tasks import task
from i3tasks.exceptions import PermanentError
from tests.shop.models import Order


@task
def note(name: str, value: Any = None) -> Any:
    """Leaves a row for every time it runs."""
    Order.objects.create(name=name, total="0")
    return value


@task
async def double(value: int) -> int:
    return value * 2


@task
def total(values: list[int]) -> int:
    return sum(values)


@task(max_retries=0)
def break_down(name: str = "broken") -> None:
    Order.objects.create(name=name, total="0")
    raise PermanentError(name)


@task
def mourn(failed_execution_id: int, name: str = "mourned") -> None:
    Order.objects.create(name=f"{name}:{failed_execution_id}", total="0")


@task(on_success=note.build_chain("after"))
def with_hook(name: str) -> None:
    Order.objects.create(name=name, total="0")


@task(max_retries=0, on_failure=mourn)
def with_failure_hook() -> None:
    raise ValueError("no")
