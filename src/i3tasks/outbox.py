"""Tries on their way to Pub/Sub: hand them to the publisher, and note in the rows what became of it."""

from __future__ import annotations

import atexit
from collections.abc import Iterable
from functools import partial

from .broker.errors import BrokerUnavailable
from .broker.publisher import Outgoing, get_publisher
from .clock import SYSTEM_CLOCK, Clock
from .conf import Config, get_config
from .envelope import Envelope, attributes
from .exceptions import BrokerError, UnknownQueueError
from .registry import find
from .store.refs import TryRef
from .store.writer import CONFIRM, DENY, writer
from .telemetry import emit


def send(refs: Iterable[TryRef], *, clock: Clock = SYSTEM_CLOCK) -> None:
    """Publish these tries without waiting, from any thread. What fails stays due in the rows: nothing is lost."""
    config, publisher = get_config(), get_publisher()
    pub_time = attributes(clock.now())
    for ref in refs:
        try:
            topic = topic_of(ref, config)
        except UnknownQueueError as error:
            emit("publish_failed", try_id=ref.try_id, task=f"{ref.module_name}.{ref.func_name}", error=str(error))
            continue
        publisher.publish(Outgoing(topic, _envelope(ref).to_bytes(), pub_time, partial(_published, ref)))


def topic_of(ref: TryRef, config: Config) -> str:
    """The full name of the topic that a try goes to: its queue's, unless the task names one itself."""
    spec = find(ref.module_name, ref.func_name)
    if spec is not None and spec.options.topic_name and not ref.queue_name:
        project = spec.options.project_id or config.pubsub.project_id
        return f"projects/{project}/topics/{spec.options.topic_name}"
    return config.queue(ref.queue_name).topic


def _envelope(ref: TryRef) -> Envelope:
    spec = find(ref.module_name, ref.func_name)
    return Envelope(
        task_execution_id=ref.execution_id,
        task_execution_try_id=ref.try_id,
        module_name=ref.module_name,
        func_name=ref.func_name,
        bind=spec is not None and spec.options.bind,
    )


def _published(ref: TryRef, error: BrokerError | None) -> None:
    if error is None:
        writer.post(CONFIRM, ref)
        return
    writer.post(DENY, ref)
    if not isinstance(error, BrokerUnavailable):  # an outage is reported once, by the publisher
        emit("publish_failed", try_id=ref.try_id, task=f"{ref.module_name}.{ref.func_name}", error=str(error))


@atexit.register
def flush() -> None:
    """Wait, for a bounded time, until what left is noted. The publisher's own exit, which comes first, sends it."""
    settings = get_config().settings
    if settings.register_client_teardown:
        writer.flush(settings.flush_seconds)
