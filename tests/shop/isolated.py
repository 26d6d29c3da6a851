"""Tasks that run in a process of their own."""

import contextvars
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum
from multiprocessing import get_context
from typing import Any

from i3tasks import PermanentError, RetryPolicy, TaskMetadata, task
from i3tasks.calls.travelling import take_along
from i3tasks.exceptions import TaskCancelled
from i3tasks.store.enqueue import NewExecution
from i3tasks.telemetry import TRY, TaskFilter
from tests.shop.models import Order
from tests.shop.tasks import add


class CardDeclined(Exception):
    def __init__(self, code: int, text: str) -> None:  # pickling this the plain way fails
        super().__init__(text)
        self.code = code


@task(isolation="process", bind=True)
def where(task_metadata: TaskMetadata, name: str) -> dict[str, Any]:
    Order.objects.create(name=name, total="0")
    return {"pid": os.getpid(), "try_number": task_metadata.try_number}


@task(isolation="process")
def logs() -> dict[str, Any]:
    record = logging.makeLogRecord({})
    TaskFilter().filter(record)
    return {name: str(getattr(record, name)) for name in TRY}


@task(isolation="process", max_retries=0, sensitive=("card",))
def charge(order: int, card: str) -> None:
    raise CardDeclined(7, f"order {order}: no card {card}")


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


@task(isolation="process", max_retries=0, bind=True)
def clean_up(name: str, *, end: str, task_metadata: Any = None) -> str:
    """Runs until it is told to end, notes what it was told, and does then what `end` says."""
    Order.objects.create(name=name, total="0")
    try:
        time.sleep(60)
    except TaskCancelled as told:
        noted = {"name": f"{name}: {told}"[:100], "total": int(task_metadata.is_cancelled())}
        Order.objects.filter(name=name).update(**noted)
        if end == "return":
            return "done after all"
        if end == "stay":
            time.sleep(60)
        raise
    return "never told"


class Refused(PermanentError):
    def __init__(self, code: int, text: str) -> None:  # pickling this the plain way fails, too
        super().__init__(text)
        self.code = code


@task(isolation="process", max_retries=3)
def refuse() -> None:
    raise Refused(7, "never again")


def unpickle(pid: int) -> Exception:
    if os.getpid() != pid:
        raise SystemExit(3)
    return Homebody("here")


class Homebody(Exception):
    """Can be unpickled where it was made, and ends any other process that tries."""

    def __reduce__(self) -> Any:
        return unpickle, (os.getpid(),)


@task(isolation="process", max_retries=0)
def stay_at_home() -> None:
    raise Homebody("here")


@task(isolation="process")
def give_what_json_lacks() -> Any:
    return {"at": datetime(2026, 1, 2, tzinfo=UTC), "price": Decimal("1.50"), "far": 1e300}


class Kind(Enum):
    FIRST = "first"


@task(isolation="process")
def echo(*values: Any, as_text: bool = False) -> Any:
    return {1: values} if as_text else values


@task(isolation="process", timeout=20, max_retries=0)
def talk() -> list[str]:
    """Writes and reads wherever it can."""
    print("hello")
    for number in (1, 2):
        os.write(number, b"hello" * 100_000)
    subprocess.run([sys.executable, "-c", "print('hello')"], check=True)
    read = subprocess.run([sys.executable, "-c", "input()"], stderr=subprocess.PIPE, check=False)
    return [sys.stdin.read(), read.stderr.decode().splitlines()[-1]]


LANGUAGE: contextvars.ContextVar[str] = contextvars.ContextVar("LANGUAGE", default="none")


@task(isolation="process")
def set_language() -> str:
    before = LANGUAGE.get()
    LANGUAGE.set("de")
    return before


@task(isolation="process", max_retries=0)
def take_signals() -> list[int]:
    """As a process does whose whole group gets Ctrl-C, or whose service is stopped. Its own children still end."""
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(os.getpid(), number)
    with get_context("fork").Pool(1) as pool:  # which it ends by SIGTERM
        return pool.map(abs, [-1])


@task(isolation="process", max_retries=0)
def wait_in_process(seconds: float) -> int:
    return add.delay(1, 2).result(timeout=seconds)


@task(isolation="process", bind=True)
def whence(task_metadata: Any = None) -> dict[str, Any]:
    """What travelled here, and what a call that is made here would take along."""
    call = NewExecution("tests.shop.tasks", "add", [1, 2], {})
    take_along([call])
    return {
        "headers": dict(task_metadata.headers),
        "traceparent": task_metadata.traceparent,
        "takes": call.trace_context,
    }


@task(isolation="process", max_retries=0)
def isolated(path: str) -> None:
    """Run until there is a file of that name."""
    wait_in_thread(path)


def wait_in_thread(path: str) -> None:
    while not os.path.exists(path):
        time.sleep(0.02)


@dataclass(frozen=True)
class Frozen(Exception):
    code: int


class Paired(ExceptionGroup[Exception]):
    def __new__(cls, errors: list[Exception], reason: str) -> "Paired":
        return super().__new__(cls, "paired", errors)

    def __init__(self, errors: list[Exception], reason: str) -> None:
        self.reason = reason


def _hidden() -> Exception:
    class Hidden(Exception):
        """Of a class that no other process can name."""

    return Hidden("h")


TOGETHER: dict[str, Callable[[], Exception]] = {
    "frozen": lambda: Frozen(7),
    "beside what does not travel": lambda: ExceptionGroup(
        "1", [CardDeclined(7, "x"), ExceptionGroup("2", [_hidden(), ExceptionGroup("3", [PermanentError("no")])])]
    ),
    "frozen in a group": lambda: ExceptionGroup("1", [_hidden(), Frozen(7)]),
    "in a group of its own class": lambda: Paired([CardDeclined(7, "x"), PermanentError("no")], "both"),
}


@task(isolation="process", retry=RetryPolicy(give_up_on=(Frozen,)))
def raise_together(name: str) -> None:
    raise TOGETHER[name]()
