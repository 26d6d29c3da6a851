"""The storage of the emulator's topics, subscriptions, messages and unsettled deliveries, in SQLite or not at all.

Writes are gathered: requests that come while a transaction is being committed share the next one, so a thousand
concurrent publishes cost a few commits. A `WriteBatch` is never split over two transactions. Each commit hands the WAL
to the operating system, so confirmed changes survive the death of the process; a power cut may lose the last moments.
"""

from __future__ import annotations

import asyncio
import queue
import sqlite3
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from .messages import Message

_VERSION = 1
_SCHEMA = """
CREATE TABLE IF NOT EXISTS topic (name TEXT PRIMARY KEY, config BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS subscription (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, config BLOB NOT NULL, active_at REAL NOT NULL
);
CREATE TABLE IF NOT EXISTS message (
    id INTEGER PRIMARY KEY, topic TEXT NOT NULL, published_at REAL NOT NULL, ordering_key TEXT NOT NULL,
    payload BLOB NOT NULL, kept_until REAL NOT NULL
);
CREATE INDEX IF NOT EXISTS message_kept ON message (kept_until) WHERE kept_until > 0;
CREATE TABLE IF NOT EXISTS delivery (
    message INTEGER NOT NULL, subscription INTEGER NOT NULL, failures INTEGER NOT NULL DEFAULT 0,
    acked INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (message, subscription)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS secret (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
"""

_SAVE_TOPIC = "INSERT OR REPLACE INTO topic VALUES (?, ?)"
_DELETE_TOPIC = "DELETE FROM topic WHERE name = ?"
_KEEP_MESSAGES = "UPDATE message SET kept_until = CASE WHEN ? > 0 THEN published_at + ? ELSE 0 END WHERE topic = ?"
_SAVE_SUBSCRIPTION = "INSERT OR REPLACE INTO subscription VALUES (?, ?, ?, ?)"
_DELETE_SUBSCRIPTION = "DELETE FROM subscription WHERE id = ?"
_DELETE_DELIVERIES = "DELETE FROM delivery WHERE subscription = ?"
_ADD_MESSAGE = "INSERT INTO message VALUES (?, ?, ?, ?, ?, ?)"
_ADD_DELIVERY = "INSERT OR REPLACE INTO delivery (message, subscription) VALUES (?, ?)"
_DELETE_DELIVERY = "DELETE FROM delivery WHERE message = ? AND subscription = ?"
_FORGET_MESSAGE = (
    "DELETE FROM message WHERE id = ? AND kept_until = 0"
    " AND NOT EXISTS (SELECT 1 FROM delivery WHERE delivery.message = message.id)"
)
_RETAIN = "UPDATE delivery SET acked = 1 WHERE message = ? AND subscription = ?"
_COUNT_FAILURES = "UPDATE delivery SET failures = ? WHERE message = ? AND subscription = ?"
_SWEEP_ALL = (
    "DELETE FROM message WHERE kept_until <= ?"
    " AND NOT EXISTS (SELECT 1 FROM delivery WHERE delivery.message = message.id)"
)
_SWEEP_KEPT = f"{_SWEEP_ALL} AND kept_until > 0"
_SAVE_SECRET = "INSERT OR REPLACE INTO secret VALUES (?, ?)"


@dataclass(slots=True)
class WriteBatch:
    """Changes that are written in one transaction, in the order in which they were added."""

    statements: list[tuple[str, list[tuple[Any, ...]]]] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.statements)

    def _add(self, statement: str, *rows: tuple[Any, ...]) -> None:
        if self.statements and self.statements[-1][0] is statement:
            self.statements[-1][1].extend(rows)
        elif rows:
            self.statements.append((statement, list(rows)))

    def save_topic(self, name: str, config: bytes) -> None:
        """Create the topic or replace its configuration."""
        self._add(_SAVE_TOPIC, (name, config))

    def keep_messages(self, topic: str, seconds: float) -> None:
        """Keep the topic's messages for `seconds` after they were published, settled or not; 0 keeps none."""
        self._add(_KEEP_MESSAGES, (seconds, seconds, topic))

    def delete_topic(self, name: str) -> None:
        """Delete the topic. Messages stay while a subscription needs them."""
        self.keep_messages(name, 0)
        self._add(_DELETE_TOPIC, (name,))
        self._add(_SWEEP_ALL, (0,))

    def save_subscription(self, number: int, name: str, config: bytes, active_at: float) -> None:
        """Create the subscription or replace its configuration."""
        self._add(_SAVE_SUBSCRIPTION, (number, name, config, active_at))

    def delete_subscription(self, number: int) -> None:
        """Delete the subscription and its deliveries."""
        self._add(_DELETE_SUBSCRIPTION, (number,))
        self._add(_DELETE_DELIVERIES, (number,))
        self._add(_SWEEP_ALL, (0,))

    def add_message(self, message: Message, topic: str, kept_until: float, subscriptions: Iterable[int]) -> None:
        """Record a message and the subscriptions that have to deliver it."""
        row = (message.id, topic, message.published_at, message.ordering_key, message.payload, kept_until)
        self._add(_ADD_MESSAGE, row)
        self._add(_ADD_DELIVERY, *((message.id, subscription) for subscription in subscriptions))

    def revive(self, subscription: int, messages: Sequence[int]) -> None:
        """Let the subscription deliver these messages, again or for the first time."""
        self._add(_ADD_DELIVERY, *((message, subscription) for message in messages))

    def settle(self, subscription: int, messages: Sequence[int]) -> None:
        """End the subscription's deliveries of these messages, and delete messages that no other subscription needs."""
        self._add(_DELETE_DELIVERY, *((message, subscription) for message in messages))
        self._add(_FORGET_MESSAGE, *((message,) for message in messages))

    def retain(self, subscription: int, messages: Sequence[int]) -> None:
        """Mark these messages as acked, and keep them for a seek."""
        self._add(_RETAIN, *((message, subscription) for message in messages))

    def count_failures(self, subscription: int, failures: Iterable[tuple[int, int]]) -> None:
        """Record the number of failures of messages, as (message id, failures)."""
        self._add(_COUNT_FAILURES, *((count, message, subscription) for message, count in failures))

    def sweep(self, now: float) -> None:
        """Delete messages that no subscription needs and that are older than their topic's retention."""
        self._add(_SWEEP_KEPT, (now,))

    def save_secret(self, name: str, value: bytes) -> None:
        """Keep a secret, such as the key that signs push tokens."""
        self._add(_SAVE_SECRET, (name, value))


@dataclass(slots=True)
class Kept:
    """The data on disk at the emulator's start."""

    topics: list[tuple[str, bytes]] = field(default_factory=list)
    subscriptions: list[tuple[int, str, bytes, float]] = field(default_factory=list)  # id, name, config, active_at
    messages: list[tuple[Message, str, float]] = field(default_factory=list)  # message, topic, kept until
    deliveries: list[tuple[int, int, int, bool]] = field(default_factory=list)  # message, subscription, failures, acked
    secrets: dict[str, bytes] = field(default_factory=dict)


class Journal(Protocol):
    """A store for the state that must survive a restart."""

    def load(self) -> Kept:
        """Read the data of earlier runs. Called once, before the first write."""
        ...

    def write(self, batch: WriteBatch) -> asyncio.Future[None]:
        """Write the batch. The future is done when it is committed; batches are committed in order."""
        ...

    def close(self) -> None:
        """Write the remaining batches and close the files."""
        ...


class NoJournal:
    """A store that keeps nothing, for `--in-memory`."""

    def load(self) -> Kept:
        """Return an empty state, because nothing was kept."""
        return Kept()

    def write(self, batch: WriteBatch) -> asyncio.Future[None]:
        """Return a future that is done already."""
        done = asyncio.get_running_loop().create_future()
        done.set_result(None)
        return done

    def close(self) -> None:
        """Do nothing: there are no files."""


_Request = tuple[WriteBatch, "asyncio.Future[None]"]


class SqliteJournal:
    """A store in SQLite. One thread with one connection commits all gathered batches together.

    `on_failure` is called in the event loop when a write fails. The emulator should stop then, because it can't keep
    any further changes.
    """

    def __init__(self, path: Path, on_failure: Callable[[Exception], None]) -> None:
        self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=0.2)
        self._on_failure = on_failure
        self._requests: queue.SimpleQueue[_Request | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        try:
            self._open()
        except sqlite3.Error:
            self._connection.close()
            raise

    def _open(self) -> None:
        execute = self._connection.execute
        # With an exclusive lock, a second emulator on the same folder fails at its start, and the WAL needs no shared
        # memory.
        execute("PRAGMA locking_mode = EXCLUSIVE")
        execute("PRAGMA journal_mode = WAL")
        execute("PRAGMA synchronous = NORMAL")
        (version,) = execute("PRAGMA user_version").fetchone()
        if version not in (0, _VERSION):
            raise sqlite3.DatabaseError(f"its format is number {version}, and this emulator reads number {_VERSION}")
        self._connection.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} PRAGMA user_version = {_VERSION}; COMMIT;")

    def load(self) -> Kept:
        """Read everything."""
        execute = self._connection.execute
        messages = execute("SELECT id, published_at, payload, ordering_key, topic, kept_until FROM message ORDER BY id")
        return Kept(
            topics=execute("SELECT name, config FROM topic").fetchall(),
            subscriptions=execute("SELECT id, name, config, active_at FROM subscription").fetchall(),
            messages=[(Message(*row[:4]), row[4], row[5]) for row in messages],
            deliveries=execute(
                "SELECT message, subscription, failures, acked FROM delivery ORDER BY message"
            ).fetchall(),
            secrets=dict(execute("SELECT name, value FROM secret")),
        )

    def write(self, batch: WriteBatch) -> asyncio.Future[None]:
        """Queue the batch for the next transaction."""
        loop = asyncio.get_running_loop()
        if self._thread is None:
            self._thread = threading.Thread(
                target=self._run, args=(loop,), name="i3tasks-emulator-journal", daemon=True
            )
            self._thread.start()
        committed: asyncio.Future[None] = loop.create_future()
        self._requests.put((batch, committed))
        return committed

    def close(self) -> None:
        """Commit the queued batches, then close. The futures of batches that are queued now are not resolved."""
        if self._thread is not None:
            self._requests.put(None)
            self._thread.join()
        self._connection.close()

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        going, error = True, None
        while going:
            requests = self._gather()
            going = requests[-1] is not None
            work = [request for request in requests if request is not None]
            error = error or self._commit([batch for batch, _ in work])  # after a failure nothing more is written
            if not loop.is_closed():
                loop.call_soon_threadsafe(self._resolve, [future for _, future in work], error)

    def _gather(self) -> list[_Request | None]:
        requests = [self._requests.get()]
        while requests[-1] is not None:
            try:
                requests.append(self._requests.get_nowait())
            except queue.Empty:
                break
        return requests

    def _commit(self, batches: list[WriteBatch]) -> Exception | None:
        try:
            self._connection.execute("BEGIN")
            for batch in batches:
                for statement, rows in batch.statements:
                    self._connection.executemany(statement, rows)
            self._connection.execute("COMMIT")
        except sqlite3.Error as error:
            return error
        return None

    def _resolve(self, futures: list[asyncio.Future[None]], error: Exception | None) -> None:
        if error is not None:
            self._on_failure(error)
        for future in futures:
            if future.done():
                continue
            if error is None:
                future.set_result(None)
            else:
                future.set_exception(error)
