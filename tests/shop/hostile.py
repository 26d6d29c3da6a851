"""Tasks that misbehave, each in its own way. Not discovered: a row that names one makes the worker import this."""

import asyncio
import threading
from collections.abc import Iterator, Mapping
from typing import Any

from i3tasks import task
from tests.shop.models import Order

ERRORS: dict[str, type[BaseException]] = {
    error.__name__: error
    for error in (
        SystemExit,
        KeyboardInterrupt,
        asyncio.CancelledError,
        StopIteration,
        GeneratorExit,
        StopAsyncIteration,
        TimeoutError,
    )
}


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text for you")


class Exiting(Exception):
    def __str__(self) -> str:
        raise SystemExit(3)


class Opaque:
    """JSON can't hold it."""

    def __str__(self) -> str:
        return "an opaque thing"


class Mute:
    """JSON can't hold it, and nor can text."""

    def __str__(self) -> str:
        raise SystemExit(4)


class Trap(Mapping[str, Any]):
    """Looks like a mapping until its items are read."""

    def __getitem__(self, key: str) -> Any:
        raise OSError("a trap")

    def __iter__(self) -> Iterator[str]:
        raise OSError("a trap")

    def __len__(self) -> int:
        return 1


ERRORS["Unprintable"], ERRORS["Exiting"] = Unprintable, Exiting
VALUES: dict[str, Any] = {
    "opaque": Opaque(),
    "mute": Mute(),
    "trap": Trap(),
    "nul": "a\x00b",
    "surrogate": "\ud800",
    "nan": float("nan"),
}


@task(max_retries=0)
def throw(name: str) -> None:
    raise ERRORS[name]("thrown")


@task(max_retries=0)
async def athrow(name: str) -> None:
    await asyncio.sleep(0)
    raise ERRORS[name]("thrown")


@task(max_retries=0)
def descend() -> None:
    descend.spec.function()


@task(max_retries=0)
async def adescend() -> None:
    await adescend.spec.function()


@task(max_retries=0)
def give(name: str) -> Any:
    return VALUES[name]


@task(max_retries=0)
def nothing() -> None:
    """Not hostile at all, but it once was refused."""


@task(max_retries=0)
async def anothing() -> None: ...


@task(max_retries=0)
def give_orders() -> Any:
    return Order.objects.all()


GATES: dict[str, threading.Event] = {}
NOTES: list[Any] = []


@task(max_retries=0, timeout=0.1)
def hang(gate: str) -> None:
    """A thread that can't be killed: hangs until the test opens the gate."""
    NOTES.append(f"in {gate}")
    GATES[gate].wait(30)
    NOTES.append(f"out {gate}")


@task(max_retries=0, timeout=0.1)
async def ahang() -> None:
    try:
        await asyncio.sleep(60)
    finally:
        await asyncio.sleep(0)
        NOTES.append("cleaned up")


@task(max_retries=0, timeout=0.1)
async def stubborn() -> None:
    """Swallows every cancellation until the test opens the gate."""
    while not GATES["stubborn"].is_set():
        try:
            await asyncio.sleep(0.05)
        except asyncio.CancelledError:
            NOTES.append("swallowed")


@task(max_retries=0)
async def straggle(gate: str) -> str:
    """Ends, and leaves a task behind that goes on to use the ORM."""

    async def later() -> None:
        while not GATES[gate].is_set():
            await asyncio.sleep(0.01)
        try:
            NOTES.append(await Order.objects.acount())
        except RuntimeError as error:
            NOTES.append(error)

    NOTES.append(asyncio.create_task(later()))
    await Order.objects.acount()
    return "left"
