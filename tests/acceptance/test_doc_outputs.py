"""What the pages show of commands and log lines is what these print; numbers and lengths of time may differ."""

from __future__ import annotations

import io
import json
import logging
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.test import Client, override_settings
from django.utils import timezone

from i3tasks import cli, task
from i3tasks.core.envelope import Envelope
from i3tasks.models import TaskExecution, TaskExecutionTry, Worker
from i3tasks.store.bulk import HELD
from i3tasks.telemetry import ConsoleFormatter, emit
from i3tasks.testing import advance, drain
from i3tasks.types import I3TasksSettings
from tests.support.doc_blocks import ROOT, Page

ELSEWHERE = {"README.md": "test_census.py", "docs/tutorial.md": "test_tutorial.py"}
HERE = {
    "docs/command-line.md": 4,
    "docs/emulator.md": 1,
    "docs/observability.md": 1,
    "docs/workers.md": 1,
}


class CardDeclined(Exception):
    """Of the shop's."""


@task
def charge(order: int) -> None:
    raise CardDeclined("no money")


@pytest.fixture
def stands_in_terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    """Answers yes, and keeps what was asked."""
    asked = io.StringIO()
    monkeypatch.setattr("sys.stdin", type("Terminal", (io.StringIO,), {"isatty": lambda self: True})())
    monkeypatch.setattr("builtins.input", lambda question: (asked.write(question + "y\n"), "y")[1])
    return asked


def page(name: str) -> Page:
    return Page(ROOT / name)


def shape(line: str) -> str:
    """The line without its numbers, its lengths of time and its width."""
    line = re.sub(r"\d{4}-\d\d-\d\dT[\d:+.]+", "<instant>", line)
    line = re.sub(r"\b[\d,]*\.?\d+ ?(ms|min|s|m|h|d)\b( ago)?", "<time>", line)
    line = re.sub(r"[\d,]*\.?\d+", "0", line)
    line = re.sub(r"\b(executions were|execution was)\b", "executions were", line)
    return " ".join(line.replace("tests.acceptance.test_doc_outputs", "shop.tasks").split())


def shows(wanted: str, printed: str) -> None:
    """Each line, in its shape; `...` alone stands for any."""
    found = [shape(line) for line in printed.splitlines()]
    missing = [line for line in wanted.splitlines() if line.strip() != "..." and shape(line) not in found]
    assert not missing, "\n".join([*missing, "is not in", *found])


def test_every_output_is_compared_somewhere() -> None:
    pages = [Page(path) for path in (ROOT / "README.md", *(ROOT / "docs").rglob("*.md"))]
    shown = {each.name: len(each.of("console", "text", "")) for each in pages if each.of("console", "text", "")}

    assert {name: number for name, number in shown.items() if name not in ELSEWHERE} == HERE


@pytest.mark.django_db
def test_the_command_line_prints_what_its_page_shows(stands_in_terminal: io.StringIO) -> None:
    handles = [charge.delay(number) for number in range(3)]
    for _ in range(4):
        drain()
        advance(timedelta(seconds=30))
    before = timezone.now() - timedelta(minutes=12)
    TaskExecution.objects.update(created_at=before)
    TaskExecution.objects.filter(pk=handles[0].task_execution_id).update(uuid="0199c1a0-7c9e-7cc4-8a3c-5e0e8d1b2f11")
    TaskExecutionTry.objects.update(worker_id="mail-7f9")
    assert all(execution.outcome == "failed" for execution in TaskExecution.objects.all())
    charge.delay(4)  # waits
    known = {"4711": str(handles[0].task_execution_id), "shop.tasks.charge": charge.spec.path}
    for block in page("docs/command-line.md").of("console"):
        for session in re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]:
            command, _, output = session.partition("\n")
            if "--pdb" not in command:
                shows(output.replace(HELD, ""), printed(command, known, stands_in_terminal) + "\n1 left alone: .")


def printed(command: str, known: dict[str, str], asked: io.StringIO) -> str:
    """What the command prints, in the place of the names of the page those of `known`."""
    for word, own in known.items():
        command = command.replace(word, own)
    _, name, *words = shlex.split(command)
    stream = io.StringIO()
    try:
        call_command(cli.COMMANDS[name][0], *words, stdout=stream)
    except (CommandError, SystemExit) as error:
        stream.write(f"\n{error}")
    return asked.getvalue() + stream.getvalue()


@pytest.mark.django_db
def test_workers_are_listed_as_their_page_shows() -> None:
    now = timezone.now()

    def ago(**length: int) -> datetime:
        return now - timedelta(**length)

    shared = {"host": "host", "pid": 1, "version": "1.0.0", "concurrency": 100}
    Worker.objects.create(
        id="mail-7f9", role="worker", state="running", running=12, queues=["mail"], started_at=ago(hours=3),
        heartbeat_at=ago(seconds=2), dispatched_at=ago(seconds=2), beat_at=ago(seconds=9), **shared,
    )  # fmt: skip
    Worker.objects.create(
        id="web-1", role="web", state="draining", running=0, queues=["default"], started_at=ago(minutes=5),
        heartbeat_at=ago(seconds=4), dispatched_at=ago(seconds=31), beat_at=None, **shared,
    )  # fmt: skip
    stream = io.StringIO()
    call_command("i3tasks_workers", stdout=stream)

    [shown] = page("docs/workers.md").of("text")
    shows(shown.text, stream.getvalue())


def test_log_lines_look_as_their_page_shows() -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(ConsoleFormatter())
    logger = logging.getLogger("i3tasks")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    of_all = {"execution_uuid": "0", "try_id": 1, "worker": "w", "duration": 0.084, "queue_time": 0.012}
    charged = {**of_all, "execution_id": 1042, "task": "shop.tasks.charge", "queue": "default", "try_number": 1}
    mailed = {
        **of_all,
        "execution_id": 1043,
        "task": "shop.tasks.mail",
        "queue": "mail",
        "error_class": "SMTPException",
    }
    again = datetime(2026, 5, 3, 14, 2, 33, tzinfo=UTC)
    try:
        emit("try_succeeded", **charged)
        emit("try_failed", **mailed, error="busy", try_number=1, next_try=2, next_try_at=again)
        emit("execution_failed", **mailed, error="busy", try_number=4)
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)

    [shown] = page("docs/observability.md").of("text")
    shows(shown.text, stream.getvalue())


def test_the_emulator_says_the_line_that_its_page_shows() -> None:
    command = [sys.executable, "-m", "i3tasks.emulator", "--host-port", "127.0.0.1:0", "--in-memory"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as emulator:
        assert emulator.stdout is not None
        line = emulator.stdout.readline()
        emulator.terminate()

    [shown] = page("docs/emulator.md").of("")
    shows(shown.text, line)


@pytest.mark.django_db
@override_settings(I3TASKS=I3TasksSettings(status_shows_values=True))
def test_json_of_the_endpoints_has_the_fields_that_their_page_shows(client: Client) -> None:
    handle = charge.delay(1)
    drain()
    health, status = [json.loads(block.text) for block in page("docs/reference/http.md").of("json")]

    assert fields(health) == fields(client.get("/i3/tasks-health/").json())
    assert fields(status) == fields(client.get(f"/i3/tasks-status/{handle.task_execution_id}/").json())


def test_the_wire_format_is_as_its_page_shows() -> None:
    [shown] = page("docs/reference/wire.md").of("json")
    envelope = Envelope(task_execution_id=1, task_execution_try_id=1, module_name="shop.tasks", func_name="add")

    assert json.loads(envelope.to_bytes()) == json.loads(shown.text)


def fields(value: Any) -> Any:
    """The names of a JSON object's fields, at each level that both have; of a list its first item's."""
    if isinstance(value, dict):
        return {name: fields(item) for name, item in value.items() if name not in ("result", "task_args")}
    return [fields(value[0])] if isinstance(value, list) and value and isinstance(value[0], dict) else None
