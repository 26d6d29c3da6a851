"""Publishing without waiting: `publish` only queues, and one thread talks to Pub/Sub.

A lost publish loses no task, because the dispatcher publishes the row again at its `dispatch_at`. So the publisher
gives up early, reports the failure through `on_done`, and does not repeat the publish.
"""

from __future__ import annotations

import atexit
import os
import threading
import time
import weakref
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from operator import attrgetter
from typing import TYPE_CHECKING

from ..conf import Config, get_config
from ..exceptions import BrokerError
from ..telemetry import emit
from ..threads.batching import BatchThread
from .circuit import Circuit, Refusals
from .errors import BrokerInvalid, BrokerMissing, BrokerUnavailable
from .loading import importing, is_cut_off, talking
from .outgoing import MAXIMUM_MESSAGE_BYTES, MakeMessage, Outgoing, requests
from .provisioning import ensure_at_start

if TYPE_CHECKING:
    from .sending import Sender

__all__ = ["Outgoing", "Publisher", "flush_all", "get_publisher"]

_MAXIMUM_BATCH = 1000
_MAXIMUM_QUEUED = 50_000  # about 20 MB of our messages; the dispatcher sends those that find no place
_IDLE_SECONDS = 300.0


class Publisher:
    """Queues messages for Pub/Sub and sends them, in batches, from a thread of its own."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._circuit = Circuit("publisher")
        self._refusals = Refusals()
        self._sender: Sender | None = None
        self._retired = False
        self._batches: BatchThread[Outgoing | MakeMessage | None] = BatchThread(
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
        """The configuration that the publisher was made with."""
        return self._config

    @property
    def is_available(self) -> bool:
        """Tell whether the last request got an answer. Only a publish makes requests and updates this."""
        return self._circuit.is_closed

    @property
    def trouble(self) -> str | None:
        """The reason why Pub/Sub is not available, or a topic refuses its messages; None while all is well."""
        return self._circuit.trouble or self._refusals.trouble

    @property
    def fresh_trouble(self) -> str | None:
        """The same, if the last failed publish is at most a minute old (a refusal: three minutes); else None."""
        return self._circuit.fresh_trouble or self._refusals.trouble

    def is_refused_by(self, topic: str) -> bool:
        """Tell whether the topic refused what was published last, because it is missing or not permitted."""
        return self._refusals.includes(topic)

    def publish(self, *messages: Outgoing | MakeMessage) -> bool:
        """Queue the messages, from any thread. Never blocks, and never raises an error of the broker.

        A message that is given as a function is made in the publisher's thread, so that the caller need not wait for
        it. Returns False if the queue is full or the interpreter is shutting down; `on_done` is not called for those
        that found no place, and the dispatcher publishes their rows later.
        """
        return self._batches.put_all(messages) == len(messages)

    def flush(self, timeout: float) -> bool:
        """Wait until all queued messages were sent or have failed. Returns False after `timeout` seconds of waiting."""
        return self._batches.flush(timeout)

    def retire(self) -> None:
        """Send the queued messages, end the thread and close the connection of a publisher that was replaced."""
        self._retired = True
        self._batches.put(None)  # wakes the thread

    # ------------------------------------------------------------------------------------------ in the thread

    def _handle(self, batch: Sequence[Outgoing | MakeMessage | None]) -> None:
        for topic, messages in requests(_made(batch)):
            try:
                self._deliver(topic, messages)
            except Exception as error:  # a bug; the dispatcher publishes the rows later
                emit("internal_error", where="publisher", error=repr(error), exc_info=error)

    def _deliver(self, topic: str, messages: list[Outgoing]) -> None:
        """Send one request and call its messages' `on_done`. A request that is refused as invalid is sent in halves,
        until only the invalid messages fail."""
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
        if messages[0].size > MAXIMUM_MESSAGE_BYTES:  # alone in its request; refused before it is sent
            raise BrokerInvalid(
                f"A message of {messages[0].size:,} bytes for {topic} is over Pub/Sub's limit of 10 MB. Send the name "
                "of a file or a row instead."
            )
        if is_cut_off():
            raise BrokerUnavailable("A child that a worker forked can't use gRPC: a dispatcher sends what it enqueues.")
        self._circuit.check()
        try:
            with talking():
                self._send_or_provision(topic, messages)
        except BrokerUnavailable as error:
            self._circuit.failed(error, topic=topic)
            raise
        except BrokerError as error:
            self._circuit.answered()
            self._refusals.note(topic, None if isinstance(error, BrokerInvalid) else error)
            raise
        self._circuit.answered()
        self._refusals.note(topic, None)

    def _send_or_provision(self, topic: str, messages: list[Outgoing]) -> None:
        # During an outage a probe is one quick request, so that the messages behind it don't wait long.
        patient = self._circuit.is_closed
        if patient:
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
        """Put aside the client in a forked child, unclosed: its threads and sockets belong to the parent."""
        if self._sender is not None:
            _abandoned.append(self._sender)
        self._sender = None
        self._circuit = Circuit("publisher")


def _made(batch: Iterable[Outgoing | MakeMessage | None]) -> Iterator[Outgoing]:
    for message in batch:
        try:
            if message is not None:
                yield message if isinstance(message, Outgoing) else message()
        except Exception as error:  # a bug; the dispatcher publishes the row later
            emit("internal_error", where="publisher", error=repr(error), exc_info=error)


def _finish(messages: Sequence[Outgoing], error: BrokerError | None) -> None:
    for on_done, together in groupby(messages, key=attrgetter("on_done")):
        try:
            on_done(list(together), error)
        except Exception as raised:
            emit("internal_error", where="on_done of a publish", error=repr(raised), exc_info=raised)


# ---------------------------------------------------------------------------------------------- one per process

_all: weakref.WeakSet[Publisher] = weakref.WeakSet()
_abandoned: list[Sender] = []
_current: Publisher | None = None
_is_withholding = False
_choosing = threading.Lock()


@contextmanager
def withholding(is_on: bool = True) -> Iterator[None]:
    """Accept messages without sending them while the block runs, for tests: the rows stay due. Off: send them."""
    global _is_withholding
    before, _is_withholding = _is_withholding, is_on
    try:
        yield
    finally:
        _is_withholding = before


class _Withholding(Publisher):
    """Sends nothing."""

    def publish(self, *messages: Outgoing | MakeMessage) -> bool:
        return False


def get_publisher() -> Publisher:
    """The process's publisher for the current settings. It is replaced when the settings change."""
    global _current
    config = get_config()
    if _is_withholding:
        return _Withholding(config)
    publisher = _current
    if publisher is not None and publisher.config is config:
        return publisher
    with _choosing:
        if _current is None or _current.config is not config:
            if _current is not None:
                _current.retire()
            else:
                atexit.register(flush_all)
            _current = Publisher(config)
        return _current


def flush_all() -> None:
    """Wait a bounded time for running publishes, at exit: their daemon threads die with the interpreter."""
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
