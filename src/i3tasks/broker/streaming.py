"""One streaming-pull session on Google's high-level client: the part of the receiver that talks to Google's library.

The library does flow control, leases, batched acks and reconnection, in threads of its own. i3tasks adds a `Scheduler`,
the library's public extension point, which takes each message to the event loop instead of a thread pool, and tells
Pub/Sub in a thread of its own what has arrived (`receipts`).
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import grpc
from google.cloud import pubsub_v1
from google.cloud.pubsub_v1.subscriber.scheduler import Scheduler

from ..conf import PubSubConfig
from . import clients
from .clients import api
from .loading import note_streams
from .receipts import Receipts

_MAXIMUM_BYTES = 64 * 1024 * 1024
_MAXIMUM_LEASE_SECONDS = 7 * 86_400.0
"""Longest time for which a message is extended, longer than any body runs: a message that is no longer extended frees
its place while its body still runs."""

_WATCH_SECONDS = 0.25
"""Time, a little longer than the interval at which grpc's thread checks a connection."""

_ACKS = clients.patience(20)
_EXTENSIONS = clients.patience(5)


class LoopScheduler(Scheduler):  # type: ignore[misc]  # the library's classes are untyped
    """Hands messages to `arrived`, which is called in a library thread and must neither block nor raise."""

    def __init__(self, answers: Any, arrived: Callable[[Any], None], dismiss: Callable[[], Iterable[Any]]) -> None:
        self._answers = answers
        self._arrived = arrived
        self._dismiss = dismiss
        self._over = False
        self._may_end = threading.Event()
        self._may_end.set()

    @property
    def queue(self) -> Any:
        """The queue into which messages put their acks and nacks."""
        return self._answers

    def schedule(self, callback: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        """Take a message to the loop. `callback`, the library's wrapper that catches errors, is not needed."""
        message = args[0]
        if self._over:
            message.nack()
        else:
            self._arrived(message)

    def hold(self) -> None:
        """Make `shutdown` wait for `release`. Leases are extended and acks are sent until `shutdown` returns."""
        self._may_end.clear()

    def release(self) -> None:
        """Let `shutdown` return."""
        self._may_end.set()

    def shutdown(self, await_msg_callbacks: bool = False) -> list[Any]:
        """End the scheduler, after `release` if `hold` was called. The library calls this when the stream has ended."""
        self._over = True
        for message in self._dismiss():
            message.nack()  # at once: the library would nack returned messages only after the wait
        self._may_end.wait()
        return []


class _Subscriber(pubsub_v1.SubscriberClient):  # type: ignore[misc]
    """A client whose acks and extensions fail early, without ending the stream. It calls `on_open` for each new stream.

    In the library, an outage of a minute with unanswered messages raises RetryError, which ends the subscription for
    good. An ack may fail: Pub/Sub delivers the message again, and its row refuses a second run.
    """

    on_open: Callable[[], None]
    receives: Callable[[], bool]
    """Whether this thread is about to hand over messages, which need not wait for the answer to their receipt."""
    receipts: Receipts
    is_ending = False
    answers_sent = 0

    def streaming_pull(self, *args: Any, **kwargs: Any) -> Any:
        if self.is_ending:
            return _EndedStream()
        self.on_open()
        return super().streaming_pull(*args, **kwargs)

    def acknowledge(self, *args: Any, **kwargs: Any) -> Any:
        self.receipts.answered(_ids(kwargs))
        return self._best_effort(super().acknowledge, _ACKS, args, kwargs)

    def modify_ack_deadline(self, *args: Any, **kwargs: Any) -> Any:
        seconds = kwargs.get("ack_deadline_seconds")
        if seconds and self.receives():
            return self.receipts.put(_ids(kwargs), seconds)
        if seconds == 0:
            self.receipts.answered(_ids(kwargs), wait=True)
        return self.extend(*args, **kwargs)

    def extend(self, *args: Any, **kwargs: Any) -> Any:
        """Give messages more time."""
        return self._best_effort(super().modify_ack_deadline, _EXTENSIONS, args, kwargs)

    def _best_effort(self, method: Callable[..., Any], patience: Any, args: Any, kwargs: Any) -> Any:
        try:
            return method(*args, **{**patience, **kwargs})
        except api.RetryError as error:
            raise api.ServiceUnavailable(str(error)) from error
        except ValueError as error:  # the channel was closed during the call
            raise api.Cancelled(str(error)) from error
        finally:
            self.answers_sent += 1


def _ids(kwargs: dict[str, Any]) -> list[str]:
    """The messages of a request. The library may give an iterator of them, which the request needs, too."""
    if "ack_ids" not in kwargs:
        return []
    ids = kwargs["ack_ids"] = [*kwargs["ack_ids"]]
    return ids


class _EndedStream:
    """Stands in for a stream that is opened after the end. An exception would print a library thread's traceback."""

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        """Ignore the callback, because the stream was never active."""

    def cancel(self) -> None:
        """Do nothing: there is nothing to cancel."""

    def is_active(self) -> bool:
        return False

    def __next__(self) -> Any:
        raise api.Cancelled("the receiver was closed")


_PARTS = {"_consumer": "receives", "_dispatcher": "acks", "_leaser": "extends leases", "_heartbeater": "heartbeats"}
"""Part of the library's manager that has a thread -> the work of this thread."""


def _thread_of(manager: Any, part: str) -> threading.Thread | None:
    """Find a part's thread. Returns None before its start, and in versions of the library with other internals."""
    thread = getattr(getattr(manager, part, None), "_thread", None)
    return thread if isinstance(thread, threading.Thread) else None


class Session:
    """The streaming of one subscription, from `open` to `close`."""

    def __init__(
        self,
        config: PubSubConfig,
        subscription: str,
        *,
        answers: queue.SimpleQueue[Any],
        max_messages: int,
        max_extension_seconds: float,
        arrived: Callable[[Any], None],
        dismiss: Callable[[], Iterable[Any]],
        opened: Callable[[], None],
        connected: Callable[[bool], None],
        ended: Callable[[BaseException | None], None],
    ) -> None:
        self._config = config
        self._subscription = subscription
        self._answers = answers
        self._scheduler = LoopScheduler(answers, arrived, dismiss)
        self._opened = opened
        self._connected = connected
        self._ended = ended
        self._flow_control = pubsub_v1.types.FlowControl(
            max_messages=max_messages,
            max_bytes=_MAXIMUM_BYTES,
            max_lease_duration=_MAXIMUM_LEASE_SECONDS,
            max_duration_per_lease_extension=max_extension_seconds,
        )
        self._lock = threading.Lock()
        self._stopping = False
        self._client: Any = None
        self._unwatched_at: float | None = None
        self._future: Any = None

    def open(self) -> None:
        """Start streaming. Run this in a thread: finding credentials may block. Raises errors of Google's library."""
        client = clients.make_streaming(_Subscriber, self._config)
        note_streams()
        client.on_open = self._opened
        client.receives = self._receives
        client.receipts = Receipts(partial(self._tell_arrived, client))
        with self._lock:
            if self._stopping:
                client.close()
                return
            self._client = client
            client.transport.grpc_channel.subscribe(self._on_connectivity)
            self._future = client.subscribe(
                self._subscription,
                callback=_never_called,
                flow_control=self._flow_control,
                scheduler=self._scheduler,
                await_callbacks_on_shutdown=True,
            )
            self._future.add_done_callback(lambda future: self._ended(future.exception()))

    @property
    def is_open(self) -> bool:
        """Tell whether `open` has started the stream."""
        return self._future is not None

    @property
    def _manager(self) -> Any:
        """The library's part that moves the messages; None before the start, and in versions with other internals."""
        return getattr(self._future, "_StreamingPullFuture__manager", None)  # there is no public name

    def _receives(self) -> bool:
        """Whether this is the thread that receives, of a stream whose messages are not delivered exactly once.

        Of those that are, the library hands over only messages of which Pub/Sub has confirmed the lease.
        """
        manager = self._manager
        if manager is None or threading.current_thread() is not _thread_of(manager, "_consumer"):
            return False
        is_exactly_once = getattr(manager, "_exactly_once_delivery_enabled", None)
        return is_exactly_once is not None and not is_exactly_once()

    def _tell_arrived(self, client: Any, ack_ids: Sequence[str], seconds: int) -> None:
        client.extend(subscription=self._subscription, ack_ids=ack_ids, ack_deadline_seconds=seconds)

    @property
    def dead_threads(self) -> list[str]:
        """The work of each library thread that has ended although the stream has not."""
        manager = self._manager
        if manager is None or self._stopping or self._future.done():
            return []
        threads = {what: _thread_of(manager, part) for part, what in _PARTS.items()}
        return [what for what, thread in threads.items() if thread is not None and not thread.is_alive()]

    @property
    def answers_waiting(self) -> int:
        """Number of acks, nacks and extensions that the library has not taken from the queue."""
        return self._answers.qsize()

    @property
    def answers_sent(self) -> int:
        """Number of ended requests with acks, nacks and extensions, whether they succeeded or failed."""
        return self._client.answers_sent if self._client is not None else 0

    def stop(self) -> None:
        """Stop receiving. Acks are still sent and leases extended until `release`."""
        with self._lock:
            if self._stopping:
                return
            self._stopping = True
            self._unwatch()
            if self._future is not None:
                self._scheduler.hold()
                self._cancel()

    def release(self) -> None:
        """Send the queued acks and end the stream."""
        self._scheduler.release()

    def prepare_close(self) -> float:
        """Get ready for `close`. Returns the seconds to wait before it.

        If the session is closed earlier, grpc's thread that checks the connection may print a traceback.
        """
        self._scheduler.release()
        with self._lock:
            self._stopping = True
            self._unwatch()
            since = time.monotonic() - self._unwatched_at if self._unwatched_at is not None else _WATCH_SECONDS
        return max(_WATCH_SECONDS - since, 0.0)

    def close(self) -> None:
        """Cut the connection. Running calls fail, so that every thread of the session ends."""
        self.prepare_close()
        with self._lock:
            if self._client is not None:
                self._client.is_ending = True
                self._client.close()

    def _unwatch(self) -> None:
        if self._client is not None and self._unwatched_at is None:
            self._client.transport.grpc_channel.unsubscribe(self._on_connectivity)
            self._unwatched_at = time.monotonic()

    def _on_connectivity(self, state: Any) -> None:
        if state is grpc.ChannelConnectivity.READY:
            self._connected(True)
        elif state is grpc.ChannelConnectivity.TRANSIENT_FAILURE:
            self._connected(False)

    def _cancel(self) -> None:
        try:
            self._future.cancel()
        except RuntimeError:  # `cancel` starts a thread, which the interpreter refuses at its shutdown
            self._scheduler.release()


def _never_called(message: Any) -> None:
    """The callback that the library demands. The scheduler takes the messages, so it is never called."""
