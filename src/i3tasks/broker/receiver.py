"""Receiving the messages of one pull queue on the event loop, and sending their acks and nacks.

`Receiver` hides the client that streams the messages, Google's high-level one (`streaming`), from other packages.
"""

from __future__ import annotations

import asyncio
import queue
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from ..conf import Config, QueueNames, get_config
from ..core.clock import SYSTEM_CLOCK, Clock
from ..exceptions import BrokerError
from ..telemetry import emit
from .deliveries import Delivery, Inbox, Incoming, Outstanding
from .errors import BrokerMissing, BrokerUnavailable, StreamBroken, StreamSilent, translate
from .loading import importing
from .provisioning import ensure_at_start
from .stream_health import STEADY_SECONDS, Quiet, StreamHealth
from .watchdog import WATCH_SECONDS, Doubts, Watchdog

if TYPE_CHECKING:
    from .streaming import Session

__all__ = ["Delivery", "Incoming", "Receiver"]

_FIRST_BACKOFF_SECONDS = 0.25
_LONGEST_BACKOFF_SECONDS = 15.0
_MOST_BREAKS = 5
"""Number of breaks in a row, each within _LASTING_SECONDS of the stream's start, after which the receiver gives up."""
_LASTING_SECONDS = 600.0
_ENDING_SECONDS = 3.0
"""Time for a session to send its last acks and end, before its connection is cut."""


class Receiver:
    """Streams one pull queue's messages, also after outages, until it is stopped. Belongs to one event loop.

    At most `max_messages` messages are delivered and unanswered at a time.
    """

    def __init__(self, names: QueueNames, *, max_messages: int, clock: Clock = SYSTEM_CLOCK) -> None:
        self._names = names
        self._max_messages = max_messages
        self._clock = clock
        self._health = StreamHealth(names.name, names.subscription, clock)
        self._quiet = Quiet(clock, get_config().settings.fallback_seconds or 0, max_messages)
        self._doubts = Doubts(clock)
        self._is_sound = True
        self._outstanding = Outstanding()
        # Consecutive sessions share the queue: a message of one may be answered through the next.
        self._answers: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._stopped = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop
        self._inbox: Inbox
        self._session: Session | None = None
        self._ended: asyncio.Future[BaseException | None] | None = None

    @property
    def names(self) -> QueueNames:
        """The names of the queue."""
        return self._names

    @property
    def is_down(self) -> bool:
        """Tell whether Pub/Sub is known to deliver nothing now."""
        return self._health.is_down

    @property
    def trouble(self) -> str | None:
        """The reason why Pub/Sub delivers nothing, or None. May be read from any thread."""
        return self._health.trouble

    @property
    def quiet_seconds(self) -> float:
        """Seconds since the last sign that more messages wait in Pub/Sub than the worker takes (see `Quiet`).

        A full receiver is such a sign and is noticed when this is read, so read it regularly.
        """
        if len(self._outstanding) >= self._max_messages:
            self._quiet.broken()
        return self._quiet.seconds

    @property
    def is_sound(self) -> bool:
        """Tell whether the client works. False from the time it was found broken until another stream is open."""
        return self._is_sound

    def doubt(self) -> None:
        """Note that the database held tries that the stream should have brought. In the end the stream is reopened."""
        if self._doubts.grow() and self._ended is not None:
            _resolve(self._ended, StreamSilent(f"{self._names.subscription} brought nothing while tries waited."))

    async def run(self, deliver: Callable[[Incoming], None]) -> None:
        """Receive until `stop`. `deliver` is called on the loop for each message and must be cheap.

        Outages are events and no errors: the subscription is opened again after a growing pause. Raises StreamBroken
        if the client breaks again and again.
        """
        config = get_config()
        self._loop = asyncio.get_running_loop()
        self._inbox = Inbox(lambda: self._on_loop(self._hand_over, deliver))
        stopped = asyncio.ensure_future(self._stopped.wait())
        try:
            await self._supervise(config, stopped)
        finally:
            stopped.cancel()
            self.stop()

    def stop(self) -> None:
        """Stop receiving. Delivered messages may still be answered until `drain`. Idempotent."""
        self._stopped.set()
        self._health.close()
        if self._session is not None:
            self._session.stop()

    async def drain(self, timeout: float) -> None:
        """Wait at most `timeout` seconds until all delivered messages are answered, send the answers, and close."""
        self.stop()
        session, self._session = self._session, None
        if session is None:
            return
        try:
            await self._until_answered(timeout)
            for message in self._inbox.empty():  # they came while the stream was being stopped
                message.nack()
            session.release()
            if session.is_open and self._ended is not None:
                await asyncio.wait({self._ended}, timeout=_ENDING_SECONDS)
            await asyncio.sleep(session.prepare_close())
        finally:
            session.close()

    # --------------------------------------------------------------------------------------------- supervision

    async def _supervise(self, config: Config, stopped: asyncio.Future[Any]) -> None:
        failures = breaks = 0
        while not self._stopped.is_set():
            since = self._clock.monotonic()
            error = await self._stream(config, stopped)
            if error is None:
                return
            failures = 1 if self._clock.monotonic() - since > STEADY_SECONDS else failures + 1
            self._health.failed(error)
            if isinstance(error, StreamBroken):
                breaks = breaks + 1 if self._clock.monotonic() - since < _LASTING_SECONDS else 1
                if breaks >= _MOST_BREAKS:
                    raise error
            if not (isinstance(error, BrokerMissing) and await self._provision(config)):
                await asyncio.wait({stopped}, timeout=self._backoff(failures))

    def _backoff(self, failures: int) -> float:
        return float(
            min(_LONGEST_BACKOFF_SECONDS, _FIRST_BACKOFF_SECONDS * 2 ** min(failures, 20)) * self._clock.jitter(0.3)
        )

    async def _provision(self, config: Config) -> bool:
        try:
            return await asyncio.to_thread(ensure_at_start, config, again=True)
        except BrokerError as error:
            self._health.failed(error)
            return False

    async def _stream(self, config: Config, stopped: asyncio.Future[Any]) -> BrokerError | None:
        """Stream until `stopped` or until the session ends by itself. Returns None, or the reason of that end."""
        self._ended = ended = self._loop.create_future()
        try:
            session = self._session = await asyncio.to_thread(self._make_session, config, ended)
            await asyncio.to_thread(session.open)
            self._is_sound = True
            await self._watch(session, ended, stopped)
            if self._stopped.is_set():
                return None
            error = ended.result() or BrokerUnavailable()
        except RuntimeError as raised:  # no thread can be started
            error = StreamBroken(f"{self._names.subscription} can't be streamed: {raised}")
        except Exception as raised:
            error = raised
        await self._drop_session(error)
        return translate(error, "subscribe", self._names.subscription, config.pubsub)

    async def _watch(self, session: Session, *ends: asyncio.Future[Any]) -> None:
        """Wait until one of `ends` is done. A session that is found broken resolves the first of them."""
        watchdog = Watchdog(session, self._clock)
        while not (await asyncio.wait(ends, timeout=WATCH_SECONDS, return_when=asyncio.FIRST_COMPLETED))[0]:
            ailment = watchdog.look()
            if ailment is not None:
                self._is_sound = False
                _resolve(ends[0], StreamBroken(f"{ailment} The stream of {self._names.subscription} is opened again."))

    def _part_with(self, session: Session) -> None:
        """Stop a broken session and move its answers to a new queue.

        The session ends its threads through the old queue; in a shared one it would end those of the next session.
        """
        before, self._answers = self._answers, queue.SimpleQueue()
        with suppress(queue.Empty):
            while True:
                self._answers.put(before.get_nowait())
        session.stop()
        session.release()

    async def _drop_session(self, error: BaseException | None) -> None:
        """Close a session that ended by itself. Its messages may still be answered through the next one."""
        session, self._session = self._session, None
        if session is not None:
            if isinstance(error, (StreamBroken, StreamSilent)):
                self._part_with(session)
            try:
                await asyncio.sleep(session.prepare_close())
            finally:
                session.close()

    def _make_session(self, config: Config, ended: asyncio.Future[BaseException | None]) -> Session:
        with importing():
            from .streaming import Session
        return Session(
            config.pubsub,
            self._names.subscription,
            answers=self._answers,
            max_messages=self._max_messages,
            max_extension_seconds=config.settings.ack_deadline_seconds,
            arrived=self._inbox.put,
            dismiss=self._inbox.empty,
            opened=lambda: self._on_loop(self._health.opened),
            connected=lambda is_ready: self._on_loop(self._health.connected, is_ready),
            ended=lambda error: self._on_loop(_resolve, ended, error),
        )

    # ------------------------------------------------------------------------------------------------ the loop

    def _on_loop(self, function: Callable[..., None], *arguments: Any) -> None:
        """Call `function` on the loop, from any thread. Does nothing once the loop is closed."""
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(function, *arguments)

    def _hand_over(self, deliver: Callable[[Incoming], None]) -> None:
        if self._stopped.is_set():
            return  # messages that are left in the inbox are nacked at the session's end
        messages = self._inbox.empty()
        if messages:
            self._health.well()
            self._doubts.end()
        for message in messages:
            self._quiet.arrived(message.publish_time)
            incoming = Incoming(self._delivery(message), message, self._outstanding)
            try:
                deliver(incoming)
            except Exception as error:
                emit("internal_error", where="receiver", error=repr(error), exc_info=error)
                incoming.nack()

    def _delivery(self, message: Any) -> Delivery:
        return Delivery(
            data=message.data,
            attributes=message.attributes,
            message_id=message.message_id,
            publish_time=message.publish_time,
            delivery_attempt=message.delivery_attempt,
            queue_name=self._names.name,
        )

    async def _until_answered(self, timeout: float) -> None:
        empty = asyncio.Event()
        self._outstanding.when_empty(lambda: self._on_loop(empty.set))
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await empty.wait()


def _resolve(future: asyncio.Future[BaseException | None], error: BaseException | None) -> None:
    if not future.done():
        future.set_result(error)
