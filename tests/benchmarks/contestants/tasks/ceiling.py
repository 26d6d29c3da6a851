"""The worker of `ceiling`."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime

import grpc
import psycopg
from google.cloud import pubsub_v1

from ...harness.bodies import BODIES
from ...harness.measure import Measure
from ..ceiling import Contestant

BATCH, AT_ONCE = 500, 4
INSERT = (
    "INSERT INTO result (id, task, status, result, started, finished) "
    "SELECT i, t, 'SUCCESSFUL', r::jsonb, s, f "
    "FROM unnest(%s::text[], %s::text[], %s::text[], %s::timestamptz[], %s::timestamptz[]) AS u(i, t, r, s, f) "
    "ON CONFLICT DO NOTHING"
)


async def run(data: bytes) -> tuple[str, str, str, datetime, datetime]:
    message = json.loads(data)
    started = datetime.now(UTC)
    result = await BODIES[message["task"]](*message["args"])
    return message["id"], message["task"], json.dumps(result), started, datetime.now(UTC)


async def work(contestant: Contestant) -> None:
    types = pubsub_v1.types
    request, acknowledge = types.PullRequest.pb(), types.AcknowledgeRequest.pb()
    async with grpc.aio.insecure_channel(contestant.measure.emulator) as channel:
        pull = channel.unary_unary(
            "/google.pubsub.v1.Subscriber/Pull",
            request_serializer=request.SerializeToString,
            response_deserializer=types.PullResponse.pb().FromString,
        )
        ack = channel.unary_unary(
            "/google.pubsub.v1.Subscriber/Acknowledge", request_serializer=acknowledge.SerializeToString
        )

        async def one_after_the_other() -> None:
            async with await psycopg.AsyncConnection.connect(contestant.dsn(), autocommit=True) as connection:
                while True:
                    name = contestant.subscription
                    got = (await pull(request(subscription=name, max_messages=BATCH))).received_messages
                    if got:
                        rows = await asyncio.gather(*(run(item.message.data) for item in got))
                        await connection.execute(INSERT, [list(column) for column in zip(*rows, strict=True)])
                        await ack(acknowledge(subscription=name, ack_ids=[item.ack_id for item in got]))

        await asyncio.gather(*(one_after_the_other() for _ in range(AT_ONCE)))


if __name__ == "__main__":
    asyncio.run(work(Contestant(Measure.current())))
