"""What travels with a call: request headers, log context and the trace, through retries, steps, callbacks and calls."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import anyio
import pytest
import structlog
from asgiref.sync import async_to_sync, sync_to_async
from django.http import HttpRequest, HttpResponse
from django.test import AsyncClient, RequestFactory
from django.urls import reverse

from i3tasks import RESULT, RetryPolicy, chain, group, task
from i3tasks.broker.deliveries import Delivery
from i3tasks.checks import check_propagation
from i3tasks.contrib.propagation import propagate_headers
from i3tasks.core.clock import SYSTEM_CLOCK
from i3tasks.core.outcome import Success
from i3tasks.engine import push
from i3tasks.engine.assembly import make_engine
from i3tasks.engine.executor import Arrival
from i3tasks.engine.pool import Slot
from i3tasks.engine.report import Verdict
from i3tasks.models import TaskExecution, TaskExecutionTry
from i3tasks.store import workflows
from i3tasks.store.settle import settle
from i3tasks.store.slices import open_slice
from i3tasks.types import DatabaseQueue
from tests.http.test_push import message_of
from tests.shop.isolated import whence
from tests.shop.tasks import aadd, add, fail
from tests.store.helpers import enqueue as write
from tests.store.helpers import lease, says
from tests.support.rigs import NotingPublisher, auntil, delivery_of

pytestmark = pytest.mark.django_db(transaction=True)

AT_ONCE = RetryPolicy(max_retries=1, base_seconds=None)


@task(bind=True, retry=AT_ONCE)
def flaky(task_metadata: Any = None) -> dict[str, Any]:
    """Fails at first, then makes a call and says what travelled here."""
    if task_metadata.is_first_try:
        raise ValueError("not yet")
    add.delay(1, 2)
    bound = structlog.contextvars.get_contextvars()
    return {"headers": dict(task_metadata.headers), "context": dict(task_metadata.context), "bound": bound}


@task(bind=True)
async def arrives(before: Any, task_metadata: Any = None) -> dict[str, Any]:
    return {"before": before, "headers": dict(task_metadata.headers), "trace": task_metadata.traceparent}


@task(bind=True)
async def on_failure(execution_id: int, task_metadata: Any = None) -> dict[str, str]:
    return dict(task_metadata.headers)


@task
async def calls() -> None:
    await aadd.adelay(1, 2)


@pytest.fixture(autouse=True)
def propagating(settings: Any) -> None:
    settings.I3TASKS = replace(
        settings.I3TASKS, propagate_headers=("X-Request-ID", "x-missing"), propagate_context=("tenant", "absent")
    )


def run_all(sent: NotingPublisher) -> None:
    """Carry out every message, and those that follow."""

    async def carry_out() -> None:
        engine = make_engine(concurrency=2, threads=1)
        while sent.messages:
            message = sent.messages.pop(0)
            message.on_done([message], None)
            delivery = Delivery(message.data, message.attributes, "1", SYSTEM_CLOCK.now(), None, "")
            await engine.executor.execute(delivery)
        engine.pool.close()

    async_to_sync(carry_out)()


def requested(answer: Any, **headers: str) -> Any:
    """Answer a request with these headers behind the middleware."""
    request = RequestFactory().get("/", headers=headers)
    return propagate_headers(lambda _: HttpResponse(json.dumps(answer())))(request)


def results() -> dict[str, Any]:
    tries = TaskExecutionTry.objects.filter(is_success=True).select_related("task_execution", "result").order_by("pk")
    return {task_try.task_execution.task_name: task_try.result.result for task_try in tries}


def test_headers_and_log_context_reach_retries_steps_and_own_calls(sent: NotingPublisher) -> None:
    with structlog.contextvars.bound_contextvars(tenant=7, secret="not chosen"):
        requested(lambda: chain(flaky.s(), arrives.s(RESULT)).delay().task_execution_id, **{"x-request-id": "r-1"})
    run_all(sent)

    found = results()
    assert found["flaky"] == {"headers": {"x-request-id": "r-1"}, "context": {"tenant": 7}, "bound": {"tenant": 7}}
    assert found["arrives"]["headers"] == {"x-request-id": "r-1"}
    kept = {row.task_name: row.trace_context for row in TaskExecution.objects.all()}
    assert kept.keys() == {"flaky", "arrives", "add"}
    assert all(value == {"headers": {"x-request-id": "r-1"}, "context": {"tenant": 7}} for value in kept.values())


def test_they_reach_callbacks_of_failure_and_of_groups(sent: NotingPublisher) -> None:
    requested(
        lambda: fail.using(on_failure=on_failure, max_retries=0).delay().task_execution_id, **{"x-request-id": "r-2"}
    )
    requested(lambda: group(add.s(1, 2), aadd.s(3, 4)).then(arrives.s(RESULT)).delay() and 1, **{"x-request-id": "r-3"})
    run_all(sent)

    found = results()
    assert found["on_failure"] == {"x-request-id": "r-2"}
    assert (found["arrives"]["before"], found["arrives"]["headers"]) == ([3, 7], {"x-request-id": "r-3"})


async def test_the_middleware_serves_async_requests_and_leaves_nothing_behind(sent: NotingPublisher) -> None:
    async def answer(request: HttpRequest) -> HttpResponse:
        await add.adelay(1, 2)
        await add.adelay_many([(1, 2)])
        return HttpResponse()

    await propagate_headers(answer)(RequestFactory().get("/", headers={"x-request-id": "x" * 5000}))
    await add.adelay(3, 4)

    kept = [row.trace_context async for row in TaskExecution.objects.order_by("pk")]
    assert kept == [{"headers": {"x-request-id": "x" * 1000}}] * 2 + [None]


@pytest.mark.usefixtures("sent")
def test_a_call_that_nothing_travels_with_keeps_nothing() -> None:
    requested(lambda: add.delay(1, 2).task_execution_id)

    assert TaskExecution.objects.get().trace_context is None


@pytest.mark.usefixtures("sent")
def test_sync_run_has_them_and_gives_the_callers_own_back() -> None:
    def answer() -> list[Any]:
        told = arrives.sync_run(1).result.result["headers"]
        return [told, add.delay(1, 2).task_execution.trace_context]

    response = requested(answer, **{"x-request-id": "r-4"})

    assert json.loads(response.content) == [{"x-request-id": "r-4"}, {"headers": {"x-request-id": "r-4"}}]


@pytest.mark.usefixtures("pushed_by_default")
async def test_a_push_has_those_of_its_call_and_not_those_of_its_own_request(
    sent: NotingPublisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(push, "_engines", {})
    call = sync_to_async(lambda: requested(lambda: arrives.delay(1).task_execution_id, **{"x-request-id": "r-5"}))
    await call()
    task_try = await TaskExecutionTry.objects.select_related("task_execution").aget()
    pushed = message_of(task_try)
    client = AsyncClient(headers={"x-request-id": "google's"})
    response = await client.post(reverse("i3tasks-push"), pushed, content_type="application/json")

    assert response.json()["result"]["result"]["headers"] == {"x-request-id": "r-5"}


def test_the_callbacks_of_groups_that_end_together_keep_apart() -> None:
    at = SYSTEM_CLOCK.now()
    handles = {
        name: requested(lambda: [group(add.s(1, 2)).then(arrives.s(RESULT)).delay().pk], **{"x-request-id": name})
        for name in ("a", "b")
    }
    tries = list(TaskExecutionTry.objects.select_related("task_execution").order_by("pk"))
    settle([says(claimed, Success(3)) for claimed in lease(*tries)], now=at)

    assert len(handles) == 2
    callbacks = TaskExecution.objects.filter(task_name="arrives").select_related("previous_group")
    for callback in callbacks:
        member = TaskExecution.objects.get(task_group=callback.previous_group_id)
        assert callback.trace_context == member.trace_context
    assert {row.trace_context["headers"]["x-request-id"] for row in callbacks} == {"a", "b"}


def test_they_reach_every_member_of_a_large_group(sent: NotingPublisher, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workflows, "WRITTEN_AT_ONCE", 2)
    many = group(add.s(number, 1) for number in range(5))
    requested(lambda: chain(add.s(1, 2), many).delay().task_execution_id, **{"x-request-id": "r-7"})
    run_all(sent)
    while open_slice() is not None:
        pass

    assert [row.trace_context for row in TaskExecution.objects.all()] == [{"headers": {"x-request-id": "r-7"}}] * 6


@pytest.mark.parametrize("nonsense", [7, [], "x", {"headers": 7, "context": 8, "traceparent": 9}])
def test_what_is_no_context_stops_nothing(nonsense: Any, sent: NotingPublisher) -> None:
    handle = arrives.delay(1)
    TaskExecution.objects.update(trace_context=nonsense)
    async_to_sync(_execute)(handle.task_execution_try)

    assert results()["arrives"]["headers"] == {}
    assert sent.messages


async def _execute(task_try: TaskExecutionTry) -> None:
    engine = make_engine(concurrency=1, threads=1)
    await engine.executor.execute(delivery_of(task_try))
    engine.pool.close()


async def test_it_reaches_the_calls_of_bodies_in_a_workers_tasks() -> None:
    """The long-lived tasks of a worker carry one try after the other: each has what its own call took along."""
    handles = [await calls.adelay() for _ in range(2)]
    for number, handle in enumerate(handles):
        trace = {"headers": {"x-request-id": f"r-{number}"}}
        await TaskExecution.objects.filter(pk=handle.task_execution_try.task_execution_id).aupdate(trace_context=trace)
    engine = make_engine(concurrency=1, threads=1)
    answered: list[Verdict] = []
    async with anyio.create_task_group() as tasks:
        engine.pool.open(tasks)
        for handle in handles:
            arrival = engine.executor.read(delivery_of(handle.task_execution_try))
            assert isinstance(arrival, Arrival)

            async def carry(slot: Slot, arrival: Arrival = arrival) -> None:
                answered.append((await engine.executor.carry_out(arrival, slot)).verdict)

            engine.pool.submit(calls.spec, carry, lambda: None)
        await auntil(lambda: len(answered) == 2)
        tasks.cancel_scope.cancel()
    engine.pool.close()

    made = TaskExecution.objects.filter(task_name="aadd").order_by("pk")
    assert [row.trace_context async for row in made] == [{"headers": {"x-request-id": f"r-{n}"}} for n in range(2)]


def test_headers_without_the_middleware_are_a_warning(settings: Any) -> None:
    assert [found.id for found in check_propagation()] == ["i3tasks.W010"]
    settings.MIDDLEWARE = [*settings.MIDDLEWARE, "i3tasks.contrib.propagation.propagate_headers"]
    assert check_propagation() == []


# ------------------------------------------------------------------------------------------------------ the trace


class Spans:
    """The finished spans, by their kind of operation."""

    def __init__(self, exporter: Any, tracer: Any) -> None:
        self.exporter = exporter
        self.tracer = tracer

    def __getitem__(self, operation: str) -> list[Any]:
        finished = self.exporter.get_finished_spans()
        return [span for span in finished if (span.attributes or {}).get("messaging.operation.type") == operation]


@pytest.fixture
def spans() -> Iterator[Spans]:
    pytest.importorskip("opentelemetry.sdk", exc_type=ImportError)
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    from i3tasks.contrib.otel import instrument, uninstrument

    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    instrument(provider)
    yield Spans(exporter, provider.get_tracer("shop"))
    uninstrument()


def id_of(context: Any) -> tuple[int, int]:
    return context.trace_id, context.span_id


def w3c(span: Any) -> str:
    return f"00-{span.context.trace_id:032x}-{span.context.span_id:016x}-{int(span.context.trace_flags):02x}"


def test_one_trace_leads_from_a_request_through_two_steps_and_a_retry(sent: NotingPublisher, spans: Spans) -> None:
    with spans.tracer.start_as_current_span("GET /checkout") as request:
        handle = chain(flaky.s(), arrives.s(RESULT)).delay()
    [message] = sent.messages
    run_all(sent)

    [created, inner] = spans["create"]
    tried = {
        (span.attributes["i3tasks.task"], span.attributes["i3tasks.try_number"]): span for span in spans["process"]
    }
    first, second = tried[f"{__name__}.flaky", 1], tried[f"{__name__}.flaky", 2]
    step, own = tried[f"{__name__}.arrives", 1], tried["tests.shop.tasks.add", 1]
    assert {span.context.trace_id for span in spans.exporter.get_finished_spans()} == {request.context.trace_id}
    assert id_of(created.parent) == id_of(request.context)
    assert [id_of(span.parent) for span in (first, second)] == [id_of(created.context)] * 2
    assert [id_of(link.context) for span in (first, second) for link in span.links] == [id_of(created.context)] * 2
    assert id_of(inner.parent) == id_of(second.context), "a call of the body"
    assert id_of(step.parent) == id_of(second.context)
    assert id_of(own.parent) == id_of(inner.context)
    assert message.attributes["traceparent"] == w3c(created)
    assert TaskExecution.objects.get(pk=handle.task_execution_id).trace_context == {"traceparent": w3c(created)}
    assert results()["arrives"]["trace"] == w3c(step)


def test_spans_are_named_as_the_conventions_for_messaging_say(sent: NotingPublisher, spans: Spans) -> None:
    from opentelemetry.trace import SpanKind, StatusCode

    handle = flaky.delay()
    topic = sent.messages[0].topic.rpartition("/")[2]
    run_all(sent)

    created, sending, (first, second, _) = spans["create"][0], spans["send"], spans["process"]
    common = {"messaging.system": "gcp_pubsub", "messaging.destination.name": topic, "i3tasks.queue": "default"}
    assert (created.name, created.kind) == (f"create {topic}", SpanKind.PRODUCER)
    assert (sending[0].name, sending[0].kind) == (f"send {topic}", SpanKind.CLIENT)
    assert (first.name, first.kind) == (f"process {topic}", SpanKind.CONSUMER)
    for span in (created, sending[0], first):
        assert common.items() <= span.attributes.items()
        assert span.attributes["messaging.operation.name"] == span.attributes["messaging.operation.type"]
    assert len(sending) == 3, "the call, its retry, and the call of its body"
    assert first.attributes["messaging.message.conversation_id"] == str(handle.task_execution.uuid)
    assert first.attributes["messaging.destination.subscription.name"].endswith("worker")
    assert [span.attributes["i3tasks.try_number"] for span in (first, second)] == [1, 2]
    assert (first.status.status_code, first.status.description) == (StatusCode.ERROR, "not yet")
    assert first.attributes["error.type"] == "ValueError"
    assert second.status.status_code is StatusCode.UNSET
    assert "error.type" not in second.attributes


@pytest.mark.usefixtures("sent")
def test_sync_run_is_traced(spans: Spans) -> None:
    with spans.tracer.start_as_current_span("GET /") as request:
        arrives.sync_run(1)

    [created], [processed] = spans["create"], spans["process"]
    assert id_of(created.parent) == id_of(request.context)
    assert id_of(processed.parent) == id_of(created.context)


def test_a_queue_of_the_database_has_no_send(settings: Any, sent: NotingPublisher, spans: Spans) -> None:
    settings.I3TASKS = replace(settings.I3TASKS, default_queue=DatabaseQueue("rows"), other_queues=())
    async_to_sync(_execute)(add.delay(1, 2).task_execution_try)

    assert not sent.messages
    assert not spans["send"]
    assert [span.name for span in (*spans["create"], *spans["process"])] == ["create rows", "process rows"]
    assert spans["process"][0].attributes["messaging.system"] == "i3tasks"


def test_a_body_in_a_process_of_its_own_goes_on_with_its_trace(sent: NotingPublisher, spans: Spans) -> None:
    requested(lambda: whence.delay().task_execution_id, **{"x-request-id": "r-6"})
    run_all(sent)

    told = results()["whence"]
    [processed] = spans["process"]
    assert told["headers"] == {"x-request-id": "r-6"}
    assert told["traceparent"] == told["takes"]["traceparent"] == w3c(processed)
    assert told["takes"]["headers"] == {"x-request-id": "r-6"}


def test_traces_can_be_kept_apart(sent: NotingPublisher, spans: Spans) -> None:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor

    from i3tasks.contrib.otel import instrument

    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans.exporter))
    instrument(provider, separate_traces=True)
    add.delay(1, 2)
    run_all(sent)

    [created], [processed] = spans["create"], spans["process"]
    assert processed.parent is None
    assert processed.context.trace_id != created.context.trace_id
    assert [id_of(link.context) for link in processed.links] == [id_of(created.context)]


def test_what_breaks_in_tracing_breaks_nothing_else(sent: NotingPublisher, monkeypatch: pytest.MonkeyPatch) -> None:
    otel = pytest.importorskip("i3tasks.contrib.otel", exc_type=ImportError)

    class Broken:
        def start_span(self, *args: Any, **options: Any) -> Any:
            raise RuntimeError("no spans today")

        start_as_current_span = start_span

    monkeypatch.setattr(otel.propagation, "tracer", otel._Spans(Broken(), False))
    add.delay(1, 2)
    run_all(sent)

    assert results() == {"add": 3}


@pytest.mark.usefixtures("sent")
def test_without_a_tracer_a_trace_that_has_begun_elsewhere_goes_on() -> None:
    began = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
    [task_try] = write()
    TaskExecution.objects.update(task_path="tests.engine.test_travelling", task_name="flaky", task_args=[])
    TaskExecution.objects.update(trace_context=began)
    TaskExecutionTry.objects.filter(pk=task_try.pk).update(try_number=2)
    async_to_sync(_execute)(task_try)

    assert TaskExecution.objects.get(task_name="add").trace_context == began
