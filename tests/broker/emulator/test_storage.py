"""The journal: what is committed comes back, in whole batches, and trouble is reported."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import pytest

from i3tasks.emulator.messages import Message
from i3tasks.emulator.storage import SqliteJournal, WriteBatch


def _message(number: int) -> Message:
    return Message(number, 1.5 * number, b"payload", "key")


def _open(path: Path, failures: list[Exception] | None = None) -> SqliteJournal:
    return SqliteJournal(path / "emulator.sqlite3", (failures if failures is not None else []).append)


async def test_everything_written_comes_back(tmp_path: Path) -> None:
    journal, batch = _open(tmp_path), WriteBatch()
    batch.save_topic("topic", b"config")
    batch.save_subscription(7, "sub", b"config", 3.0)
    batch.add_message(_message(1), "topic", 0, [7])
    batch.add_message(_message(2), "topic", 0, [7])
    batch.count_failures(7, [(2, 4)])
    batch.save_secret("key", b"secret")
    await journal.write(batch)
    journal.close()
    journal = _open(tmp_path)
    kept = journal.load()
    journal.close()
    assert kept.topics == [("topic", b"config")]
    assert kept.subscriptions == [(7, "sub", b"config", 3.0)]
    assert [(each.id, each.published_at, each.payload, each.ordering_key) for each, _, _ in kept.messages] == [
        (1, 1.5, b"payload", "key"),
        (2, 3.0, b"payload", "key"),
    ]
    assert kept.deliveries == [(1, 7, 0, 0), (2, 7, 4, 0)]
    assert kept.secrets == {"key": b"secret"}


async def _left(journal: SqliteJournal, *batches: WriteBatch) -> list[int]:
    """The messages on disk after these batches."""
    for batch in batches:
        await journal.write(batch)
    return [message.id for message, _, _ in journal.load().messages]


async def test_a_message_stays_until_the_last_subscription_is_done_with_it(tmp_path: Path) -> None:
    journal, add, first, second = _open(tmp_path), WriteBatch(), WriteBatch(), WriteBatch()
    add.add_message(_message(1), "topic", 0, [7, 8])
    first.settle(7, [1])
    second.settle(8, [1])
    assert await _left(journal, add, first) == [1]
    assert await _left(journal, second) == []
    journal.close()


async def test_a_message_stays_as_long_as_its_topic_keeps_it(tmp_path: Path) -> None:
    journal, add, early, late = _open(tmp_path), WriteBatch(), WriteBatch(), WriteBatch()
    add.add_message(_message(1), "topic", 100.0, [7])
    add.settle(7, [1])
    early.sweep(99.0)
    late.sweep(100.0)
    assert await _left(journal, add, early) == [1]
    assert await _left(journal, late) == []
    journal.close()


async def test_deleting_a_subscription_forgets_what_only_it_needed(tmp_path: Path) -> None:
    journal, add, delete = _open(tmp_path), WriteBatch(), WriteBatch()
    add.add_message(_message(1), "topic", 0, [7])
    add.add_message(_message(2), "topic", 0, [7, 8])
    delete.delete_subscription(7)
    assert await _left(journal, add, delete) == [2]
    journal.close()


async def test_deleting_a_topic_forgets_what_only_it_kept(tmp_path: Path) -> None:
    journal, add, delete = _open(tmp_path), WriteBatch(), WriteBatch()
    add.save_topic("topic", b"")
    add.add_message(_message(1), "topic", 100.0, [])
    add.add_message(_message(2), "topic", 100.0, [8])
    delete.delete_topic("topic")
    assert await _left(journal, add, delete) == [2]
    journal.close()


async def test_a_batch_is_written_as_a_whole_or_not_at_all(tmp_path: Path) -> None:
    failures: list[Exception] = []
    journal, bad = _open(tmp_path, failures), WriteBatch()
    bad.add_message(_message(1), "topic", 0, [7])
    bad.add_message(_message(1), "topic", 0, [7])  # the same id again
    with pytest.raises(sqlite3.IntegrityError):
        await journal.write(bad)
    journal.close()
    assert [type(each) for each in failures] == [sqlite3.IntegrityError]
    journal = _open(tmp_path)
    assert journal.load().messages == []
    journal.close()


async def test_after_a_write_that_failed_all_others_are_refused(tmp_path: Path) -> None:
    """Rather than left waiting: the emulator is about to stop, and the caller is to hear of it."""
    journal, bad, good = _open(tmp_path, []), WriteBatch(), WriteBatch()
    bad.add_message(_message(1), "topic", 0, [7])
    bad.add_message(_message(1), "topic", 0, [7])
    good.save_topic("topic", b"")
    with pytest.raises(sqlite3.IntegrityError):
        await journal.write(bad)
    with pytest.raises(sqlite3.IntegrityError):
        await asyncio.wait_for(journal.write(good), 10)
    journal.close()


def test_a_folder_belongs_to_one_emulator(tmp_path: Path) -> None:
    journal = _open(tmp_path)
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        _open(tmp_path)
    journal.close()
    _open(tmp_path).close()


def test_another_format_is_refused(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "emulator.sqlite3")
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(sqlite3.DatabaseError, match="format"):
        _open(tmp_path)
