"""The event bus: the catalogue is kept, consumers hear of events, and nothing that listens stops the work."""

import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import structlog

from i3tasks.telemetry import EVENTS, TRY, Event, Facts, bus, emit, run_bound, run_facts, subscribe, wanted
from i3tasks.telemetry.phrases import sentence

pytestmark = pytest.mark.usefixtures("without_django_tasks")

RUN = {
    "execution_id": 5,
    "execution_uuid": UUID(int=7),
    "try_id": 6,
    "task": "shop.tasks.charge",
    "queue": "default",
    "try_number": 1,
    "worker": "host:1",
}
TIMES = {"duration": 0.25, "queue_time": 1.5}


class Hostile:
    def __repr__(self) -> str:
        raise RuntimeError("no repr")


class Broken(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        raise OSError("the disk is full")


@pytest.fixture
def heard() -> Iterator[list[tuple[str, Facts]]]:
    events: list[tuple[str, Facts]] = []
    unsubscribe = subscribe(lambda event, facts: events.append((event.name, dict(facts))))
    yield events
    unsubscribe()


@pytest.fixture
def lenient(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in production: what breaks the catalogue is logged as it is."""
    monkeypatch.setattr(bus, "violations", None)


# ------------------------------------------------------------------------------------------------------ the catalogue


def test_every_event_has_a_level_of_logging_a_sentence_and_each_field_once() -> None:
    for event in EVENTS.values():
        assert event.level in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR)
        assert event.sentence.endswith((".", ")"))
        fields = [*event.fields, *event.optional]
        assert len(fields) == len(set(fields)), event.name
        assert not {"event", "level", "message"} & set(fields), f"{event.name}: formatters have fields of these names"


@pytest.mark.parametrize("name", ["try_succeeded", "try_failed", "execution_failed"])
def test_every_end_of_a_run_says_which_try_it_was_and_how_long_it_ran_and_waited(name: str) -> None:
    assert {*TRY, "duration", "queue_time"} <= set(EVENTS[name].fields)


@pytest.mark.parametrize(
    ("name", "facts", "problem"),
    [
        ("try_succeded", {}, "The event 'try_succeded' is not in the catalogue of telemetry."),
        ("store_unavailable", {}, "The event 'store_unavailable' misses error"),
        ("store_recovered", {"why": 1, "who": 2}, "The event 'store_recovered' has undeclared who, why"),
        ("dispatch_failed", {"why": 1}, "The event 'dispatch_failed' misses error and has undeclared why"),
        ("try_succeeded", TIMES, f"The event 'try_succeeded' misses {', '.join(TRY)}"),
    ],
)
def test_what_breaks_the_catalogue_is_noted_in_tests(
    name: str, facts: dict[str, Any], problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    noted: list[str] = []
    monkeypatch.setattr(bus, "violations", noted)
    emit(name, **facts)
    assert [item.partition(":")[0] for item in noted] == [problem]


def test_what_breaks_the_catalogue_is_logged_in_production(lenient: None, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "i3tasks"):
        emit("try_succeded", surplus=1)
        emit("store_unavailable", surplus=2)
    assert [record.getMessage() for record in caplog.records] == [
        "event='try_succeded' surplus=1",
        "event='store_unavailable' surplus=2",
    ]


# ---------------------------------------------------------------------------------------------------------- consumers


def test_a_consumer_hears_of_the_events_that_it_asked_for_with_their_facts_as_they_are() -> None:
    heard: list[tuple[Event, Facts]] = []
    unsubscribe = subscribe(
        lambda event, facts: heard.append((event, facts)), ["broker_recovered", "schedule_slots_dropped"]
    )
    kept = Hostile()  # whatever it is
    try:
        emit("schedule_slots_dropped", schedule="nightly", kept=kept)
        emit("store_recovered")
    finally:
        unsubscribe()
    emit("broker_recovered")
    assert [(event, dict(facts)) for event, facts in heard] == [
        (EVENTS["schedule_slots_dropped"], {"schedule": "nightly", "kept": kept})
    ]


def test_a_run_gives_its_facts_to_its_own_events_alone(heard: list[tuple[str, Facts]]) -> None:
    other = {
        "execution_id": 9,
        "execution_uuid": UUID(int=9),
        "try_id": 10,
        "task": "a.b",
        "queue": "mail",
        "try_number": 1,
    }
    with run_bound(RUN):
        emit("try_succeeded", **TIMES)
        emit("store_recovered")
        emit("execution_enqueued", **other)
    assert run_facts() == {}
    assert heard == [("try_succeeded", {**RUN, **TIMES}), ("store_recovered", {}), ("execution_enqueued", other)]


def test_a_failing_consumer_harms_neither_the_others_nor_who_emits_and_is_said_once_a_minute(
    heard: list[tuple[str, Facts]], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr(bus.time, "monotonic", lambda: now[0])
    later: list[str] = []

    def broken(event: Event, facts: Facts) -> None:
        raise ZeroDivisionError("of the consumer")

    ends = [subscribe(broken, ["store_recovered"]), subscribe(lambda event, _: later.append(event.name))]
    try:
        for seconds in (0, 1, 60):
            now[0] = 1000.0 + seconds
            emit("store_recovered")
    finally:
        for end in ends:
            end()
    assert later == ["store_recovered"] * 3 == [name for name, _ in heard]
    failures = [record for record in caplog.records if "consumer_failed" in record.getMessage()]
    assert [record.others for record in failures] == [0, 1]  # type: ignore[attr-defined]
    assert "broken" in failures[0].consumer  # type: ignore[attr-defined]
    assert failures[0].exc_info is not None
    assert failures[0].exc_info[0] is ZeroDivisionError


def test_an_event_that_there_is_not_can_not_be_asked_for() -> None:
    with pytest.raises(ValueError, match="There is no event 'try_succeded'"):
        subscribe(print, ["try_failed", "try_succeded"])


def test_facts_are_gathered_only_if_something_listens(lenient: None, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "i3tasks")
    assert not wanted("try_succeeded")
    assert wanted("try_failed"), "it is logged"
    unsubscribe = subscribe(print, ["try_succeeded"])
    assert wanted("try_succeeded")
    unsubscribe()
    assert not wanted("try_succeeded")
    caplog.set_level(logging.DEBUG, "i3tasks")
    assert wanted("try_succeeded")


# ---------------------------------------------------------------------------------------------------------- log lines


def test_an_event_is_a_line_with_its_facts(caplog: pytest.LogCaptureFixture) -> None:
    emit("broker_unavailable", what="publisher", error="no route")
    [record] = caplog.records
    assert (record.name, record.levelname) == ("i3tasks", "WARNING")
    assert record.getMessage() == "event='broker_unavailable' what='publisher' error='no route'"
    assert (record.event, record.what) == ("broker_unavailable", "publisher")  # type: ignore[attr-defined]


def test_a_line_of_a_run_begins_with_what_names_it(caplog: pytest.LogCaptureFixture) -> None:
    with run_bound(RUN), caplog.at_level(logging.DEBUG, "i3tasks"):
        emit("try_succeeded", **TIMES)
    assert caplog.records[0].getMessage() == (
        "event='try_succeeded' execution_id=5 execution_uuid='00000000-0000-0000-0000-000000000007' try_id=6 "
        "task='shop.tasks.charge' queue='default' try_number=1 worker='host:1' duration=0.25 queue_time=1.5"
    )


def test_what_a_stranger_wrote_is_bounded(caplog: pytest.LogCaptureFixture) -> None:
    emit("envelope_refused", error="x" * 10_000_000, data=b"y" * 10_000_000)
    assert len(caplog.records[0].getMessage()) < 25_000


def test_what_the_project_has_bound_to_structlogs_context_is_on_the_line(caplog: pytest.LogCaptureFixture) -> None:
    with structlog.contextvars.bound_contextvars(request_id="r-7"):
        emit("store_recovered")
    assert "request_id='r-7'" in caplog.text


def test_an_exception_brings_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    try:
        raise ValueError("broken")
    except ValueError as error:
        emit("internal_error", where="here", error=repr(error), exc_info=error)
    assert "ValueError: broken" in caplog.text
    assert "test_telemetry.py" in caplog.text


@pytest.mark.parametrize(
    "facts",
    [{"x": Hostile()}, {"x": "\x00\ud800"}, {"exc_info": "nonsense"}, {"x": b"\xff" * 10}, {"level": 7}, {"msg": 1}],
    ids=lambda facts: next(iter(facts)),
)
def test_no_fact_makes_it_raise(facts: dict[str, Any], lenient: None) -> None:
    emit("internal_error", **facts)


def test_a_fact_named_as_what_a_record_has_itself_is_kept(lenient: None, caplog: pytest.LogCaptureFixture) -> None:
    emit("store_recovered", module="shop", message="hello")
    assert caplog.records[0].getMessage() == "event='store_recovered' module='shop' message='hello'"
    assert caplog.records[0].module_ == "shop"  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("wrapper", "factory", "says_its_level"),
    [
        (structlog.make_filtering_bound_logger(logging.INFO), structlog.PrintLoggerFactory(), True),
        (structlog.stdlib.BoundLogger, structlog.stdlib.LoggerFactory(), True),
        (structlog.BoundLogger, structlog.PrintLoggerFactory(), False),
    ],
    ids=["filtering", "stdlib", "plain"],
)
def test_a_structlog_of_the_project_gets_the_events_its_own_way(
    wrapper: type, factory: Any, says_its_level: bool, lenient: None, caplog: pytest.LogCaptureFixture
) -> None:
    lines: list[Any] = []
    error = ValueError("broken")

    def keep(logger: Any, method: str, line: dict[str, Any]) -> Any:
        lines.append((method, dict(line)))
        raise structlog.DropEvent

    caplog.set_level(logging.INFO)
    structlog.configure(
        processors=[structlog.contextvars.merge_contextvars, keep],
        wrapper_class=wrapper,
        logger_factory=factory,
    )
    try:
        with structlog.contextvars.bound_contextvars(request_id="r-7"):
            emit("internal_error", where="here", error="x", exc_info=error)
        assert wanted("try_succeeded") is not says_its_level
    finally:
        structlog.reset_defaults()
    facts = {"request_id": "r-7", "where": "here", "error": "x", "exc_info": error}
    assert lines == [("error", {"event": "internal_error", **facts})]
    assert not caplog.records


@pytest.mark.parametrize("raises", [True, False])
def test_no_handler_makes_it_raise(raises: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging, "raiseExceptions", raises)
    logger = logging.getLogger("i3tasks")
    handler = Broken()
    logger.addHandler(handler)
    try:
        emit("store_recovered")
    finally:
        logger.removeHandler(handler)


def test_what_is_below_the_level_costs_no_rendering(lenient: None, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR, "i3tasks")
    emit("try_succeeded", x=Hostile())
    assert not caplog.records


@pytest.mark.parametrize("name", [event.name for event in EVENTS.values() if event.level >= logging.ERROR])
def test_every_error_ends_in_what_to_do_and_in_a_page_that_is_there(name: str) -> None:
    said = sentence(name, {"error": "refused"})
    found = re.search(r"refused\. \S.+\. See docs/([\w/-]+\.md)(?:#([\w-]+))?\.$", said)
    assert found, said
    page = (Path(__file__).resolve().parents[2] / "docs" / found[1]).read_text(encoding="utf-8")
    headings = {re.sub(r"[^\w]+", "-", title.lower()).strip("-") for title in re.findall(r"^#+ (.+)$", page, re.M)}
    assert found[2] is None or found[2] in headings


def test_what_is_no_error_ends_as_ever() -> None:
    assert sentence("try_failed", {"error": "refused"}) == "try_failed: refused"
