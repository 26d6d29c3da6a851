"""Log lines as Cloud Logging and people read them, whatever they are made of."""

from __future__ import annotations

import io
import json
import logging
import logging.config
import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
import structlog

from i3tasks.management import events as shown
from i3tasks.management.tally import Tally
from i3tasks.telemetry import (
    EVENTS,
    CloudLoggingFormatter,
    ConsoleFormatter,
    TaskFilter,
    add_task,
    bus,
    emit,
    lines,
    run_bound,
)

RUN = {
    "execution_id": 5,
    "execution_uuid": UUID(int=7),
    "try_id": 6,
    "task": "shop.tasks.charge",
    "queue": "mail",
    "try_number": 1,
    "worker": "host:1",
}
TIMES = {"duration": 0.25, "queue_time": 1.5}
FAILURE = {"error_class": "shop.errors.CardDeclined", "error": "no\nmoney"}


class Log:
    """A handler with one of the formatters, and what it wrote."""

    def __init__(self, formatter: logging.Formatter) -> None:
        self.stream = io.StringIO()
        self.handler = logging.StreamHandler(self.stream)
        self.handler.setFormatter(formatter)

    @property
    def lines(self) -> list[Any]:
        """Each line, parsed as JSON."""
        return [json.loads(line, parse_constant=pytest.fail) for line in self.stream.getvalue().splitlines()]


def listening(name: str, formatter: logging.Formatter) -> Iterator[Log]:
    log, logger = Log(formatter), logging.getLogger(name)
    logger.addHandler(log.handler)
    level = logger.level
    logger.setLevel(logging.DEBUG)
    yield log
    logger.setLevel(level)
    logger.removeHandler(log.handler)


@pytest.fixture
def cloud() -> Iterator[Log]:
    """What i3tasks logs, as JSON."""
    yield from listening("i3tasks", CloudLoggingFormatter("my-project"))


@pytest.fixture
def shop() -> Iterator[Log]:
    """What a project's own code logs, as JSON."""
    yield from listening("shop", CloudLoggingFormatter("my-project"))


@pytest.fixture
def console() -> Iterator[Log]:
    yield from listening("i3tasks", ConsoleFormatter())


# --------------------------------------------------------------------------------------------------------------- JSON


def test_an_event_is_one_json_object_whose_fields_are_fields(cloud: Log) -> None:
    before = datetime.now(UTC)
    with run_bound(RUN):
        emit("try_failed", **TIMES, **FAILURE, next_try=2, next_try_at=datetime(2026, 1, 1, tzinfo=UTC))
    [line] = cloud.lines
    assert before <= datetime.fromisoformat(line.pop("time")) <= datetime.now(UTC)
    where = line.pop("logging.googleapis.com/sourceLocation")
    assert where["file"].endswith("test_log_formats.py"), "where it was emitted"
    assert line == {
        "severity": "WARNING",
        "message": "try_failed shop.tasks.charge (execution 5, try 1, 250 ms): CardDeclined: no money",
        "logger": "i3tasks",
        "event": "try_failed",
        **RUN,
        "execution_uuid": "00000000-0000-0000-0000-000000000007",
        **TIMES,
        **FAILURE,
        "next_try": 2,
        "next_try_at": "2026-01-01T00:00:00+00:00",
        "logging.googleapis.com/labels": {"task": "shop.tasks.charge", "queue": "mail", "worker": "host:1"},
    }


def test_a_traceback_is_one_field_that_error_reporting_groups_by(cloud: Log) -> None:
    try:
        raise ValueError("broken\nin two lines")
    except ValueError as error:
        with run_bound(RUN):
            emit("execution_failed", **TIMES, **FAILURE, exc_info=error)
    [line] = cloud.lines
    assert line["severity"] == "ERROR"
    assert line["stack_trace"].startswith("Traceback (most recent call last):\n  File ")
    assert line["stack_trace"].endswith("\nValueError: broken\nin two lines")
    assert "exc_info" not in line


class Odd:
    def __str__(self) -> str:
        raise RuntimeError("no text")


ODD: dict[str, tuple[Any, Any]] = {
    "not a number": (float("nan"), "nan"),
    "infinite": (float("-inf"), "-inf"),
    "lone surrogate": ("a\ud800b", "a?b"),
    "nul and new lines": ("a\x00\r\n\u2028b", "a\x00\r\n\u2028b"),
    "bytes": (b"\xffx", "\\xffx"),
    "a set": ({1}, [1]),
    "nested": ({"a": [Decimal("1.5"), None], 3: True}, {"a": ["1.5", None], "3": True}),
    "a time": (datetime(2026, 1, 1, tzinfo=UTC), "2026-01-01T00:00:00+00:00"),
    "hostile": (Odd(), "<Odd whose text raised RuntimeError>"),
    "large": (10**400, 10**400),
}


@pytest.mark.parametrize("name", ODD)
def test_odd_values_of_a_bodys_own_line_leave_it_json(name: str, shop: Log) -> None:
    value, expected = ODD[name]
    logging.getLogger("shop").warning("paid", extra={"odd": value, "severity": "mine"})
    [line] = shop.lines
    assert line["odd"] == expected
    assert (line["severity"], line["message"]) == ("WARNING", "paid")


def test_a_value_that_holds_itself_ends_somewhere(shop: Log) -> None:
    value: list[Any] = []
    value.append(value)
    logging.getLogger("shop").warning("paid", extra={"odd": value})
    assert "odd" in shop.lines[0]


def test_a_message_that_does_not_fit_its_arguments_is_written_as_it_is(shop: Log) -> None:
    shop.handler.handle(logging.makeLogRecord({"levelno": 30, "msg": "paid %s and %s", "args": (1,)}))
    assert shop.lines[0]["message"] == "paid %s and %s"


@pytest.mark.parametrize(
    ("level", "severity"),
    [(5, "DEFAULT"), (10, "DEBUG"), (25, "INFO"), (35, "WARNING"), (50, "CRITICAL"), (99, "CRITICAL")],
)
def test_every_level_has_a_severity(level: int, severity: str, shop: Log) -> None:
    shop.handler.handle(logging.makeLogRecord({"levelno": level, "msg": "x"}))
    assert shop.lines[0]["severity"] == severity


def test_a_line_names_the_span_that_it_is_written_in(cloud: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    context = SimpleNamespace(is_valid=True, trace_id=0xABC, span_id=0xDEF, trace_flags=SimpleNamespace(sampled=True))
    span = SimpleNamespace(get_span_context=lambda: context)
    monkeypatch.setitem(sys.modules, "opentelemetry.trace", SimpleNamespace(get_current_span=lambda: span))
    emit("store_recovered")
    context.is_valid = False
    emit("store_recovered")
    traced, untraced = cloud.lines
    assert {name: traced[f"logging.googleapis.com/{name}"] for name in ("trace", "spanId", "trace_sampled")} == {
        "trace": "projects/my-project/traces/00000000000000000000000000000abc",
        "spanId": "0000000000000def",
        "trace_sampled": True,
    }
    assert "logging.googleapis.com/trace" not in untraced


# ------------------------------------------------------------------------------------------------- what bodies log


def test_a_bodys_line_carries_the_try_with_the_formatter_alone(shop: Log) -> None:
    with run_bound(RUN):
        logging.getLogger("shop.orders").info("paid %s", "now", extra={"order": 12})
    [line] = shop.lines
    assert (line["message"], line["order"], line["execution_id"], line["task"]) == ("paid now", 12, 5, RUN["task"])
    assert line["execution_uuid"] == "00000000-0000-0000-0000-000000000007"


def test_the_filter_gives_any_format_the_trys_attributes() -> None:
    log = Log(logging.Formatter("%(task)s %(execution_id)s/%(try_number)s %(message)s"))
    log.handler.addFilter(TaskFilter())
    logger = logging.getLogger("shop.filtered")
    logger.addHandler(log.handler)
    try:
        with run_bound(RUN):
            logger.warning("inside")
        logger.warning("outside")
    finally:
        logger.removeHandler(log.handler)
    assert log.stream.getvalue().splitlines() == ["shop.tasks.charge 5/1 inside", "None None/None outside"]


def test_the_filter_keeps_what_a_record_says_itself(shop: Log) -> None:
    shop.handler.addFilter(TaskFilter())
    with run_bound(RUN):
        logging.getLogger("shop").warning("x", extra={"task": "of the shop"})
    logging.getLogger("shop").warning("y")
    within, outside = shop.lines
    assert (within["task"], within["execution_id"]) == ("of the shop", 5)
    assert "task" not in outside
    assert "i3tasks_run" not in outside


def test_structlogs_processor_adds_the_try_and_keeps_what_is_there() -> None:
    with run_bound(RUN):
        entry = add_task(None, "info", {"event": "paid", "queue": "of the shop"})
    assert entry == {
        "event": "paid",
        **RUN,
        "execution_uuid": "00000000-0000-0000-0000-000000000007",
        "queue": "of the shop",
    }
    assert add_task(None, "info", {"event": "paid"}) == {"event": "paid"}


def test_the_settings_that_the_page_shows_work() -> None:
    page = Path(__file__).parents[2] / "docs" / "observability.md"
    samples = re.findall(r"^```python\n(LOGGING = .*?)^```", page.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    written = []
    for sample in samples:
        scope: dict[str, Any] = {}
        exec(sample, scope)
        configurator = logging.config.DictConfigurator(scope["LOGGING"])
        [formatter] = map(configurator.configure_formatter, configurator.config["formatters"].values())
        log = Log(formatter)
        for item in configurator.config.get("filters", {}).values():
            log.handler.addFilter(configurator.configure_filter(item))
        with run_bound(RUN):
            log.handler.handle(logging.makeLogRecord({"levelno": 30, "levelname": "WARNING", "msg": "paid"}))
        written.append(log.stream.getvalue())
    as_json, as_line = written
    assert json.loads(as_json).items() >= {"message": "paid", "execution_id": 5}.items()
    assert as_line == "WARNING shop.tasks.charge 5/1 paid\n"


# ------------------------------------------------------------------------------------------------------ on a terminal


def test_a_finished_try_is_one_line_in_columns(console: Log) -> None:
    with run_bound(RUN):
        emit("try_succeeded", **TIMES)
        emit("try_failed", **TIMES, **FAILURE, next_try=2, next_try_at=datetime(2026, 1, 1, 7, 8, 9, tzinfo=UTC))
        emit("execution_failed", **TIMES, **FAILURE)
    emit("broker_unavailable", what="publisher", error="no route")
    lines = [line[9:].rstrip() for line in console.stream.getvalue().splitlines()]
    columns = "shop.tasks.charge                #5 try 1        250 ms waited   1.5 s  mail"
    assert lines == [
        f"succeeded {columns}",
        f"retry     {columns} CardDeclined: no money again at 07:08:09 UTC",
        f"failed    {columns} CardDeclined: no money",
        "warning   broker_unavailable what=publisher: no route",
    ]


def test_colours_tell_success_from_failure() -> None:
    log = Log(ConsoleFormatter(colours=True))
    for name, facts in (("try_succeeded", {}), ("execution_failed", FAILURE)):
        record = logging.makeLogRecord(
            {"levelno": EVENTS[name].level, "i3tasks_event": {"event": name, **TIMES, **facts}}
        )
        log.handler.handle(record)
    good, bad = log.stream.getvalue().splitlines()
    assert "\x1b[32msucceeded\x1b[0m" in good
    assert "\x1b[31mfailed   \x1b[0m" in bad


@pytest.fixture
def command(settings: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Shows events as a command does, where a project has no LOGGING, and gives its stderr."""
    monkeypatch.setattr(lines, "LOGGER", logging.Logger("i3tasks"))  # pytest gives the real one handlers of its own
    listeners = dict(bus._listeners)

    def show(is_terminal: bool, verbosity: int = 1, **changes: Any) -> io.StringIO:
        stream = io.StringIO()
        stream.isatty = lambda: is_terminal  # type: ignore[method-assign]
        monkeypatch.setattr(sys, "stderr", stream)
        settings.I3TASKS = replace(settings.I3TASKS, **changes)
        shown.show_events(verbosity)
        return stream

    yield show
    bus._listeners.clear()
    bus._listeners.update(listeners)


@pytest.mark.parametrize(
    ("is_terminal", "log_format", "is_json"),
    [(True, "auto", False), (False, "auto", True), (False, "text", False), (True, "json", True)],
)
def test_a_command_writes_text_on_a_terminal_and_json_elsewhere(
    is_terminal: bool, log_format: str, is_json: bool, command: Any
) -> None:
    stderr = command(is_terminal, log_format=log_format)
    with run_bound(RUN):
        emit("try_started", queue_time=1)
        emit("try_succeeded", **TIMES)
    [line] = stderr.getvalue().splitlines()
    if is_json:
        assert json.loads(line).items() >= {"event": "try_succeeded", "severity": "INFO", "execution_id": 5}.items()
    else:
        assert "succeeded" in line
        assert ("\x1b[" in line) is is_terminal


@pytest.mark.parametrize(("verbosity", "expected"), [(0, []), (2, ["try_started", "try_succeeded", "store_recovered"])])
def test_verbosity_says_how_much_a_command_tells(verbosity: int, expected: list[str], command: Any) -> None:
    stderr = command(False, verbosity)
    with run_bound(RUN):
        emit("try_started", queue_time=1)
        emit("try_succeeded", **TIMES)
    emit("store_recovered")
    assert [json.loads(line)["event"] for line in stderr.getvalue().splitlines()] == expected


def test_the_projects_own_logging_wins(command: Any) -> None:
    log = Log(logging.Formatter("%(message)s"))
    lines.LOGGER.addHandler(log.handler)
    stderr = command(True)
    emit("store_unavailable", error="x")
    assert (stderr.getvalue(), log.stream.getvalue()) == ("", "event='store_unavailable' error='x'\n")
    assert lines.LOGGER.level == logging.NOTSET


def test_the_projects_own_structlog_wins(command: Any) -> None:
    told: list[str] = []

    def keep(logger: Any, method: str, entry: Any) -> Any:
        told.append(entry["event"])
        raise structlog.DropEvent

    structlog.configure(processors=[keep])
    try:
        stderr = command(True)
        emit("store_recovered")
    finally:
        structlog.reset_defaults()
    assert (stderr.getvalue(), told) == ("", ["store_recovered"])
    assert not lines.LOGGER.handlers


def test_many_tries_that_succeed_are_summed_up(cloud: Log) -> None:
    tally = Tally(cloud.handler, seconds=3600, lines=2)
    for task, count in (("shop.tasks.charge", 3), ("shop.tasks.mail", 4)):
        for _ in range(count):
            tally(EVENTS["try_succeeded"], {**RUN, **TIMES, "task": task})
    tally.sum_up()
    tally.sum_up()
    *singly, summed = cloud.lines
    assert [line["event"] for line in singly] == ["try_succeeded"] * 2
    assert summed.items() >= {"event": "tries_summed_up", "count": 5, "seconds": 3600, "mean_duration": 0.25}.items()
    assert summed["tasks"] == ["shop.tasks.mail: 4", "shop.tasks.charge: 1"]
    tally(EVENTS["try_succeeded"], {**RUN, **TIMES})
    assert len(cloud.lines) == 4, "a new interval begins with lines"


def test_the_interval_ends_by_itself(cloud: Log) -> None:
    tally = Tally(cloud.handler, seconds=0.01, lines=0)
    tally(EVENTS["try_succeeded"], {**RUN, **TIMES})
    tally._timer.join(30)
    assert [line["event"] for line in cloud.lines] == ["tries_summed_up"]
