"""Publishing from anywhere, waiting nowhere: `publish` only queues, one thread talks to Pub/Sub.

Nothing is lost when a publish is: the row's `dispatch_at` brings it back. So the publisher gives up early, says so
through `on_done`, and leaves persistence to the dispatcher.
"""

from __future__ import annotations

import atexit
import os
import threading
import time
import weakref
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..batching import BatchThread
from ..conf import Config, get_config
from ..exceptions import BrokerError
from ..telemetry import emit
from .circuit import Circuit
from .errors import BrokerInvalid, BrokerMissing, BrokerUnavailable
from .loading import importing
from .outgoing import MAXIMUM_MESSAGE_BYTES, Outgoing, requests
from .provisioning import ensure_at_start

if TYPE_CHECKING:
    from .sending import Sender

__all__ = ["Outgoing", "Publisher", "get_publisher"]

_MAXIMUM_BATCH = 1000
_MAXIMUM_QUEUED = 50_000  # some 20 MB of our messages; what finds no place is sent by the dispatcher
_IDLE_SECONDS = 300.0


class Publisher:
    """Queues messages for Pub/Sub and sends them, in batches, from a thread of its own."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._circuit = Circuit("publisher")
        self._sender: Sender | None = None
        self._retired = False
        self._batches: BatchThread[Outgoing | None] = BatchThread(
            "i3tasks-publisher",
            self._handle,
            max_batch=_MAXIMUM_BATCH,
            max_queued=_MAXIMUM_QUEUED,
            idle_seconds=lambda: 0.0 if self._retired else _IDLE_SECONDS,
            on_end=self._close,
        )
        _all.add(self)

    @property
    def config(self) -> Config:
        """What it was made with."""
        return self._config

    @property
    def is_available(self) -> bool:
        """False from a request that got no answer until the next that gets one. Only a publish finds that out."""
        return self._circuit.is_closed

    def publish(self, message: Outgoing) -> bool:
        """Queue `message`. Any thread; never blocks, never raises for the broker's sake.

        False: the queue is full or the interpreter is shutting down, and `on_done` will not be called. The row is
        safe, the dispatcher sends it.
        """
        return self._batches.put(message)

    def flush(self, timeout: float) -> bool:
        """Wait until everything queued so far was sent or has failed. False: not within `timeout` seconds."""
        return self._batches.flush(timeout)

    def retire(self) -> None:
        """Send what is queued, then end the thread and close the connection. For a publisher that was replaced."""
        self._retired = True
        self._batches.put(None)  # wakes the thread

    # ------------------------------------------------------------------------------------------ in the thread

    def _handle(self, batch: Sequence[Outgoing | None]) -> None:
        for topic, messages in requests(message for message in batch if message is not None):
            try:
                self._deliver(topic, messages)
            except Exception as error:  # a bug; the rows are safe all the same
                emit("internal_error", where="publisher", error=repr(error), exc_info=error)

    def _deliver(self, topic: str, messages: list[Outgoing]) -> None:
        """Send one request and tell its messages how it went. A message that is refused fails alone."""
        try:
            self._send(topic, messages)
        except BrokerInvalid as error:
            if len(messages) == 1:
                return _finish(messages, error)
            middle = len(messages) // 2
            self._deliver(topic, messages[:middle])
            self._deliver(topic, messages[middle:])
        except BrokerError as error:
            _finish(messages, error)
        else:
            _finish(messages, None)

    def _send(self, topic: str, messages: list[Outgoing]) -> None:
        if messages[0].size > MAXIMUM_MESSAGE_BYTES:  # then it is alone; don't carry it over the network to hear that
            raise BrokerInvalid(f"A message of {messages[0].size:,} bytes is over Pub/Sub's limit of 10 MB: {topic}.")
        self._circuit.check()
        try:
            self._send_or_provision(topic, messages)
        except BrokerUnavailable as error:
            self._circuit.failed(error, topic=topic)
            raise
        except BrokerError:
            self._circuit.answered()
            raise
        self._circuit.answered()

    def _send_or_provision(self, topic: str, messages: list[Outgoing]) -> None:
        # During an outage a probe is one quick request.
        patient = self._circuit.is_closed
        self._provision()
        try:
            self._ready_sender().send(topic, messages, patient=patient)
        except BrokerMissing:
            if not self._provision(again=True):
                raise
            self._ready_sender().send(topic, messages, patient=patient)

    def _provision(self, *, again: bool = False) -> bool:
        return ensure_at_start(self._config, again=again)

    def _ready_sender(self) -> Sender:
        if self._sender is None:
            with importing():
                from .sending import Sender
            self._sender = Sender(self._config.pubsub)
        return self._sender

    def _close(self) -> None:
        sender, self._sender = self._sender, None
        if sender is not None:
            sender.close()

    def _abandon(self) -> None:
        """In a forked child: keep, but never touch again, a client whose threads and sockets are the parent's."""
        if self._sender is not None:
            _abandoned.append(self._sender)
        self._sender = None
        self._circuit = Circuit("publisher")


def _finish(messages: Sequence[Outgoing], error: BrokerError | None) -> None:
    for message in messages:
        try:
            message.on_done(error)
        except Exception as raised:
            emit("internal_error", where="on_done of a publish", error=repr(raised), exc_info=raised)


# ---------------------------------------------------------------------------------------------- one per process

_all: weakref.WeakSet[Publisher] = weakref.WeakSet()
_abandoned: list[Sender] = []
_current: Publisher | None = None
_choosing = threading.Lock()


def get_publisher() -> Publisher:
    """The process's publisher for the settings as they are now; replaced when they change."""
    global _current
    config = get_config()
    publisher = _current
    if publisher is not None and publisher.config is config:
        return publisher
    with _choosing:
        if _current is None or _current.config is not config:
            if _current is not None:
                _current.retire()
            else:
                atexit.register(_flush_at_exit)
            _current = Publisher(config)
        return _current


def _flush_at_exit() -> None:
    """Give publishes under way a bounded time: they happen in daemon threads, which die with the interpreter."""
    start = time.monotonic()
    for publisher in list(_all):
        settings = publisher.config.settings
        left = max(start + settings.flush_seconds - time.monotonic(), 0)
        if settings.register_client_teardown and not publisher.flush(left):
            emit("publish_failed", error=f"Exit after {settings.flush_seconds:g} s: the dispatcher sends what is left.")


def _after_fork_in_child() -> None:
    global _choosing
    _choosing = threading.Lock()
    for publisher in list(_all):
        publisher._abandon()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
