"""One streaming-pull session on Google's high-level client: the receiver's google side.

The library brings flow control, leases, batched acks and reconnecting streams, and pays for them with threads. Ours is
the `Scheduler`, its public extension point: instead of a thread pool it takes each message to the event loop.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

import grpc
from google.cloud import pubsub_v1
from google.cloud.pubsub_v1.subscriber.scheduler import Scheduler

from ..conf import PubSubConfig
from . import clients
from .clients import api

_MAXIMUM_BYTES = 64 * 1024 * 1024
_MAXIMUM_LEASE_SECONDS = 7 * 86_400.0
"""Longer than any body runs: a message that is no longer extended frees its place while it is still worked on."""

_WATCH_SECONDS = 0.25
"""A little more than the pause between two looks of the thread in which grpc watches a connection."""

_ACKS = clients.patience(20)
_EXTENSIONS = clients.patience(5)


class LoopScheduler(Scheduler):  # type: ignore[misc]  # the library's classes are untyped
    """Hands messages over. `arrived(message)` is called in a library thread, and must neither block nor raise."""

    def __init__(self, answers: Any, arrived: Callable[[Any], None], dismiss: Callable[[], Iterable[Any]]) -> None:
        self._answers = answers
        self._arrived = arrived
        self._dismiss = dismiss
        self._over = False
        self._may_end = threading.Event()
        self._may_end.set()

    @property
    def queue(self) -> Any:
        """Where messages put their acks and nacks."""
        return self._answers

    def schedule(self, callback: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        """The library's wrapper around a callback is left out: nothing of ours can raise into it."""
        message = args[0]
        if self._over:
            message.nack()
        else:
            self._arrived(message)

    def hold(self) -> None:
        """Let `shutdown` wait for `release`. Until it returns, leases are extended and acks are sent."""
        self._may_end.clear()

    def release(self) -> None:
        """Let `shutdown` return."""
        self._may_end.set()

    def shutdown(self, await_msg_callbacks: bool = False) -> list[Any]:
        """The stream has ended: by itself, then there is nothing to wait for, or because it was asked to."""
        self._over = True
        for message in self._dismiss():
            message.nack()  # now; what is returned would be nacked by the library, but after the wait
        self._may_end.wait()
        return []


class _Subscriber(pubsub_v1.SubscriberClient):  # type: ignore[misc]
    """Acks and extensions that fail do so soon, and without ending the stream; the stream tells when it is (re)opened.

    In the library an outage of a minute with messages in hand raises RetryError, which ends the subscription for good,
    and a thread with it. An ack is best effort anyway: what was not acked comes again, and its row refuses it.
    """

    on_open: Callable[[], None]
    is_ending = False

    def streaming_pull(self, *args: Any, **kwargs: Any) -> Any:
        if self.is_ending:
            return _EndedStream()
        self.on_open()
        return super().streaming_pull(*args, **kwargs)

    def acknowledge(self, *args: Any, **kwargs: Any) -> Any:
        return self._best_effort(super().acknowledge, _ACKS, args, kwargs)

    def modify_ack_deadline(self, *args: Any, **kwargs: Any) -> Any:
        return self._best_effort(super().modify_ack_deadline, _EXTENSIONS, args, kwargs)

    def _best_effort(self, method: Callable[..., Any], patience: Any, args: Any, kwargs: Any) -> Any:
        try:
            return method(*args, **{**patience, **kwargs})
        except api.RetryError as error:
            raise api.ServiceUnavailable(str(error)) from error
        except ValueError as error:  # the channel was closed under it
            raise api.Cancelled(str(error)) from error


class _EndedStream:
    """What a stream that is opened again after the end finds: quieter than an exception in a library thread."""

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        """It never was active."""

    def cancel(self) -> None:
        """Nothing to cancel."""

    def is_active(self) -> bool:
        return False

    def __next__(self) -> Any:
        raise api.Cancelled("the receiver was closed")


class Session:
    """A subscription that is being streamed from `open` to `close`."""

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
        """Start streaming. Finding credentials may block: run it in a thread. Raises what Google's library raises."""
        client = clients.make_streaming(_Subscriber, self._config)
        client.on_open = self._opened
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
        """Whether `open` got as far as to start the stream."""
        return self._future is not None

    def stop(self) -> None:
        """Receive no more. Acks are still sent, and leases extended, until `release`."""
        with self._lock:
            if self._stopping:
                return
            self._stopping = True
            self._unwatch()
            if self._future is not None:
                self._scheduler.hold()
                self._cancel()

    def release(self) -> None:
        """Send the acks that are queued, and end."""
        self._scheduler.release()

    def prepare_close(self) -> float:
        """Get ready to be closed, and give the seconds after which that is quiet.

        Closed earlier, the thread in which grpc watches the connection may print a traceback.
        """
        self._scheduler.release()
        with self._lock:
            self._stopping = True
            self._unwatch()
            since = time.monotonic() - self._unwatched_at if self._unwatched_at is not None else _WATCH_SECONDS
        return max(_WATCH_SECONDS - since, 0.0)

    def close(self) -> None:
        """Cut the connection. Calls under way fail, so that every thread of the session ends."""
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
        except RuntimeError:  # it starts a thread, which the interpreter refuses at its shutdown
            self._scheduler.release()


def _never_called(message: Any) -> None:
    """The scheduler takes the messages themselves."""
