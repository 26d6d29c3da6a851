"""Who may change what of a try: each transaction of a writer and each pass of a dispatcher is looked at."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from django.db import connection

from i3tasks.store.operations import CLAIM, CONFIRM, DENY, PUT_BACK, READ_PAUSES, RENEW, SETTLE, TAKE_WAITING, WITHHOLD
from i3tasks.store.pauses import ASIDE_FROM

OF_PUBLISHES = (CONFIRM, DENY, PUT_BACK, WITHHOLD)
"""What may put a try off that still has the `dispatch_at` it was published with."""


class Seen(NamedTuple):
    """A row, with its columns as SQLite has them: comparing texts is much cheaper than reading times."""

    token: str | None
    lease_until: str | None
    dispatch_at: str | None
    is_completed: bool


Snapshot = dict[int, Seen]


def look() -> Snapshot:
    """All tries as they are."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT id, claim_token, lease_until || '', dispatch_at || '', is_completed FROM i3tasks_taskexecutiontry"
        )
        return {pk: Seen(*columns) for pk, *columns in cursor.fetchall()}


def breaches_of_writer(before: Snapshot, after: Snapshot, items: Sequence[Any]) -> Iterator[str]:
    """What was changed by one who had no right to, in the transaction that carried out `items`."""
    for pk, was, is_now in _changes(before, after):
        own = {item.operation: [] for item in items}
        for item in items:
            own[item.operation] += _says(item, pk)
        if was.is_completed:
            yield f"try {pk} was over, and changed: {was} -> {is_now}"
        elif was.token is not None:
            has_ended = was.token != is_now.token or is_now.is_completed
            holders = own.get(SETTLE, []) if has_ended else own.get(RENEW, []) + own.get(CLAIM, [])
            if was.token not in holders:
                yield f"try {pk} was leased to another one, and changed: {was} -> {is_now}"
        elif CLAIM not in own or not own[CLAIM]:
            if is_now.token is not None or is_now.is_completed:
                yield f"try {pk} changed hands without a claim: {was} -> {is_now}"
            elif TAKE_WAITING in own and was.dispatch_at is not None and is_now.dispatch_at is not None:
                continue  # it takes any try that waits, and leaves it waiting
            elif was.dispatch_at not in [by for operation in OF_PUBLISHES for by in own.get(operation, [])]:
                yield f"try {pk} was to be published then, and was put off by one who had no say: {was} -> {is_now}"


def breaches_of_dispatcher(before: Snapshot, after: Snapshot, now: datetime) -> Iterator[str]:
    """The same, for a pass at `now`: it ends what is overdue, takes what is due, and releases what was set aside."""
    moment = _text(now)
    for pk, was, is_now in _changes(before, after):
        instant = was.dispatch_at if was.token is None else was.lease_until
        is_due = instant is not None and (instant <= moment or instant >= _text(ASIDE_FROM))
        if was.is_completed or not is_due:
            yield f"try {pk} was not due, and a dispatcher took it: {was} -> {is_now}"


def _changes(before: Snapshot, after: Snapshot) -> Iterator[tuple[int, Seen, Seen]]:
    return ((pk, was, after[pk]) for pk, was in before.items() if after[pk] != was)


def _says(item: Any, pk: int) -> list[str | None]:
    """The token, or the `dispatch_at`, by which a request of this try is entitled to what it asks for."""
    request = item.request
    if item.operation is RENEW:
        return [request.leases[pk].hex] if pk in request.leases else []
    if item.operation is CLAIM and pk in dict(request.taken):  # by a ticket that asked for another one
        return [request.token.hex]
    if item.operation in {TAKE_WAITING, READ_PAUSES} or request.try_id != pk:
        return []
    return [_text(request.dispatch_at) if item.operation in OF_PUBLISHES else request.token.hex]


def _text(moment: datetime) -> str:
    text: str = connection.ops.adapt_datetimefield_value(moment)
    return text
