"""Receiving: the messages of one pull queue, handed to the event loop, and their acks and nacks on the way back.

`Receiver` is the seam to whatever streams the messages. Today that is Google's high-level client (`streaming`), and
nothing outside this package knows.
"""

from __future__ import annotations

import asyncio
import queue
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from ..clock import SYSTEM_CLOCK, Clock
from ..conf import Config, QueueNames, get_config
from ..exceptions import BrokerError
from ..telemetry import emit
from .errors import BrokerMissing, BrokerUnavailable, translate
from .handover import Delivery, Hand, Inbox, Incoming
from .health import STEADY_SECONDS, StreamHealth
from .loading import importing
from .provisioning import ensure_at_start

if TYPE_CHECKING:
    from .streaming import Session

__all__ = ["Delivery", "Incoming", "Receiver"]

_FIRST_BACKOFF_SECONDS = 0.25
_LONGEST_BACKOFF_SECONDS = 15.0
_ENDING_SECONDS = 3.0
"""What a session gets to send its last acks and end, before its connection is cut."""


class Receiver:
    """Streams one pull queue's messages, through outages, until it is stopped. Belongs to one event loop.

    At most `max_messages` are delivered and unanswered at a time.
    """

    def __init__(self, names: QueueNames, *, max_messages: int, clock: Clock = SYSTEM_CLOCK) -> None:
        self._names = names
        self._max_messages = max_messages
        self._clock = clock
        self._health = StreamHealth(names.name, names.subscription, clock)
        self._hand = Hand()
        # Shared by consecutive sessions: what one delivered may be answered through the next.
        self._answers: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._stopped = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop
        self._inbox: Inbox
        self._session: Session | None = None
        self._ended: asyncio.Future[BaseException | None] | None = None

    @property
    def names(self) -> QueueNames:
        """The queue."""
        return self._names

    async def run(self, deliver: Callable[[Incoming], None]) -> None:
        """Receive until `stop`. `deliver` is called on the loop for each message and must be cheap.

        Trouble is an event, not an error; the subscription is opened again after a growing pause.
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
        """Receive nothing more from now on. What was delivered may still be answered, until `drain`. Idempotent."""
        self._stopped.set()
        self._health.close()
        if self._session is not None:
            self._session.stop()

    async def drain(self, timeout: float) -> None:
        """Wait, at most `timeout` seconds, until what was delivered is answered; send the answers; close."""
        self.stop()
        session, self._session = self._session, None
        if session is None:
            return
        try:
            await self._until_answered(timeout)
            for message in self._inbox.empty():  # came in while the stream was being stopped
                message.nack()
            session.release()
            if session.is_open and self._ended is not None:
                await asyncio.wait({self._ended}, timeout=_ENDING_SECONDS)
            await asyncio.sleep(session.prepare_close())
        finally:
            session.close()

    # --------------------------------------------------------------------------------------------- supervision

    async def _supervise(self, config: Config, stopped: asyncio.Future[Any]) -> None:
        failures = 0
        while not self._stopped.is_set():
            since = self._clock.monotonic()
            error = await self._stream(config, stopped)
            if error is None:
                return
            failures = 1 if self._clock.monotonic() - since > STEADY_SECONDS else failures + 1
            self._health.failed(error)
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
        """Stream until `stopped`, then None, or until the session ends by itself, then why."""
        self._ended = ended = self._loop.create_future()
        try:
            session = self._session = await asyncio.to_thread(self._make_session, config, ended)
            await asyncio.to_thread(session.open)
            await asyncio.wait({ended, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if self._stopped.is_set():
                return None
            error = ended.result() or BrokerUnavailable()
        except Exception as raised:
            error = raised
        await self._drop_session()
        return translate(error, "subscribe", self._names.subscription, config.pubsub)

    async def _drop_session(self) -> None:
        """Close a session that ended by itself. What it delivered may still be answered, through the next one."""
        session, self._session = self._session, None
        if session is not None:
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
        """From any thread. A loop that is closed means that nobody listens any more, which is no news to a library."""
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(function, *arguments)

    def _hand_over(self, deliver: Callable[[Incoming], None]) -> None:
        if self._stopped.is_set():
            return  # the session's end nacks what is left in the inbox
        messages = self._inbox.empty()
        if messages:
            self._health.well()
        for message in messages:
            incoming = Incoming(self._delivery(message), message, self._hand)
            try:
                deliver(incoming)
            except Exception as error:
                emit("internal_error", where="receiver", error=repr(error), exc_info=error)
                incoming.nack()

    def _delivery(self, message: Any) -> Delivery:
        return Delivery(
            data=message.data,
            attributes=dict(message.attributes),
            message_id=message.message_id,
            publish_time=message.publish_time,
            delivery_attempt=message.delivery_attempt,
            queue_name=self._names.name,
        )

    async def _until_answered(self, timeout: float) -> None:
        empty = asyncio.Event()
        self._hand.when_empty(lambda: self._on_loop(empty.set))
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await empty.wait()


def _resolve(future: asyncio.Future[BaseException | None], error: BaseException | None) -> None:
    if not future.done():
        future.set_result(error)
