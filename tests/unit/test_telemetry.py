"""Events become log lines, and no log line ever stops the work."""

import logging
from typing import Any

import pytest
import structlog

from i3tasks import telemetry
from i3tasks.telemetry import emit


class Hostile:
    def __repr__(self) -> str:
        raise RuntimeError("no repr")


class Broken(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        raise OSError("the disk is full")


def test_an_event_is_a_line_with_its_facts(caplog: pytest.LogCaptureFixture) -> None:
    emit("broker_unavailable", error="no route", tries=[1, 2])
    [record] = caplog.records
    assert (record.name, record.levelname) == ("i3tasks", "WARNING")
    assert record.getMessage() == "event='broker_unavailable' error='no route' tries=[1, 2]"


def test_the_try_that_is_run_is_named_on_every_line(caplog: pytest.LogCaptureFixture) -> None:
    with structlog.contextvars.bound_contextvars(try_id=7):
        emit("internal_error")
    assert "try_id=7" in caplog.text


def test_an_exception_brings_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    try:
        raise ValueError("broken")
    except ValueError as error:
        emit("internal_error", exc_info=error)
    assert "ValueError: broken" in caplog.text
    assert "test_telemetry.py" in caplog.text


@pytest.mark.parametrize(
    "facts",
    [{"x": Hostile()}, {"x": "\x00\ud800"}, {"exc_info": "nonsense"}, {"x": b"\xff" * 10}, {"level": 7}, {"name": 1}],
    ids=lambda facts: next(iter(facts)),
)
def test_no_fact_makes_it_raise(facts: dict[str, Any]) -> None:
    emit("internal_error", **facts)


@pytest.mark.parametrize("raises", [True, False])
def test_no_handler_makes_it_raise(raises: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging, "raiseExceptions", raises)
    logger = logging.getLogger("i3tasks")
    handler = Broken()
    logger.addHandler(handler)
    try:
        emit("internal_error", error="x")
    finally:
        logger.removeHandler(handler)


def test_every_level_is_one_of_loggings() -> None:
    assert set(telemetry._LEVELS.values()) <= {logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR}


def test_what_is_below_the_level_costs_no_rendering(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR, "i3tasks")
    emit("try_succeeded", x=Hostile())
    assert not caplog.records
