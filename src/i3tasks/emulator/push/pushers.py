"""Sending messages to the endpoints of push subscriptions."""

from __future__ import annotations

import asyncio
import functools
import logging
from types import TracebackType

from .. import configs
from ..messages import Consumer, LeasedMessage
from ..state import BrokerState
from ..status_errors import StatusError
from ..storage import WriteBatch
from ..subscription import Subscription
from .http_client import HttpClient, HttpError
from .oidc import TokenSigner, serve_certificates
from .pacing import Pacing
from .rendering import ACKNOWLEDGED, render

logger = logging.getLogger("i3tasks.emulator")


class Pushers:
    """The push loops, one for each push subscription, and the server for the certificates of their tokens."""

    def __init__(self, broker: BrokerState) -> None:
        self._broker = broker
        self._signer = TokenSigner(broker.secrets, self._keep_secret, broker.clock)
        self._client = HttpClient()
        self._loops: dict[Subscription, asyncio.Task[None]] = {}
        self._certificates: asyncio.Server | None = None
        self.certificates_url = ""

    async def __aenter__(self) -> Pushers:
        handler = functools.partial(serve_certificates, self._signer)
        self._certificates = await asyncio.start_server(handler, "127.0.0.1", 0)
        port = self._certificates.sockets[0].getsockname()[1]
        self.certificates_url = f"http://127.0.0.1:{port}/oauth2/v1/certs"
        self._broker.on_push_change = self.refresh
        self._broker.certificates = self._signer.certificates
        for subscription in self._broker.subscriptions.values():
            self.refresh(subscription)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for loop in self._loops.values():
            loop.cancel()
        await asyncio.gather(*self._loops.values(), return_exceptions=True)
        self._client.close()
        if self._certificates is not None:
            self._certificates.close()

    def refresh(self, subscription: Subscription) -> None:
        """Start, stop or restart the loop of a subscription that was created, deleted or changed."""
        running = self._loops.pop(subscription, None)
        if running is not None:
            running.cancel()
        if configs.is_push(subscription.config) and subscription.refusal() is None:
            loop = _PushLoop(subscription, self._client, self._signer)
            self._loops[subscription] = asyncio.create_task(loop.run())

    def _keep_secret(self, name: str, value: bytes) -> None:
        batch = WriteBatch()
        batch.save_secret(name, value)
        self._broker.journal.write(batch)


class _PushLoop:
    """Pushes a subscription's messages as fast as the endpoint accepts them."""

    def __init__(self, subscription: Subscription, client: HttpClient, signer: TokenSigner) -> None:
        self._subscription = subscription
        self._client = client
        self._signer = signer
        self._pacing = Pacing()
        self._consumer = Consumer()
        self._requests: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Push until cancelled, or until the subscription is deleted or detached."""
        try:
            while True:
                await self._next_round()
        except StatusError:
            pass
        finally:
            for request in self._requests:
                request.cancel()

    async def _next_round(self) -> None:
        pause = self._pacing.paused_until - asyncio.get_running_loop().time()
        if pause > 0:
            await asyncio.sleep(pause)
            return
        self._consumer.max_messages = self._pacing.window
        deliveries = self._subscription.take(self._consumer, self._pacing.window)
        if not deliveries:
            await self._subscription.changed()
        for delivery in deliveries:
            request = asyncio.create_task(self._push(delivery))
            self._requests.add(request)
            request.add_done_callback(self._requests.discard)

    async def _push(self, delivery: LeasedMessage) -> None:
        time = asyncio.get_running_loop().time
        started = time()
        accepted = await self._is_accepted(delivery)
        if accepted:
            self._pacing.succeeded(outstanding=self._consumer.messages)
        else:
            self._pacing.failed(started=started, now=time())
        try:
            ack_ids = [self._subscription.ack_id(delivery)]
            if accepted:
                self._subscription.acknowledge(ack_ids)
            else:
                self._subscription.modify(ack_ids, [0])
        except StatusError:
            pass  # the subscription was deleted or detached in the meantime

    async def _is_accepted(self, delivery: LeasedMessage) -> bool:
        url = self._subscription.config.push_config.push_endpoint
        try:
            headers, body = render(self._subscription, delivery)
            async with asyncio.timeout(self._subscription.backlog.rules.ack_deadline):
                status = await self._client.post(url, headers | self._authorization(), body)
        except (OSError, ValueError, HttpError) as error:  # ValueError: a host name that can't be one
            logger.info("Push to %s failed: %s", url, error)
            return False
        return status in ACKNOWLEDGED

    def _authorization(self) -> dict[str, str]:
        config = self._subscription.config.push_config
        if not config.HasField("oidc_token"):
            return {}
        token = config.oidc_token
        bearer = self._signer.token(token.service_account_email, token.audience or config.push_endpoint)
        return {"Authorization": f"Bearer {bearer}"}
