"""An upper bound for what has our guarantees, not a peer: results stored, then acknowledged, both in batches.

Unary Pull by grpc.aio, bodies run together, one INSERT for each batch into PostgreSQL, one Acknowledge after the
commit. No retries, no routing, hardly any serialisation.
"""

from __future__ import annotations

import json
import sys
from uuid import uuid4

from .raw import Contestant as Raw


class Contestant(Raw):
    services = ("google", "postgres")
    database = "ceiling"
    tables = ("result",)
    tasks = "ceiling"
    bodies = ("async",)

    def described(self) -> str:
        return "an upper bound: Pull, INSERT and Acknowledge in batches of 500"

    def migrate(self) -> None:
        import psycopg

        with psycopg.connect(self.dsn(), autocommit=True) as connection:
            connection.execute(
                "CREATE TABLE result (id text PRIMARY KEY, task text, status text, result jsonb, "
                "started timestamptz, finished timestamptz)"
            )

    def message(self, index: int, kind: str) -> bytes:
        return json.dumps({"id": str(uuid4()), "task": kind, "args": [index], "kwargs": {}}).encode()

    def worker_command(self, kind: str) -> list[str]:
        return [sys.executable, "-m", "tests.benchmarks.contestants.tasks.ceiling"]

    def completed(self) -> int:
        return int(self.sql("SELECT count(*) FROM result"))
