"""The deploys: each release of the project, written by the first process that runs it, for marks in charts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise

from ..models import Deploy
from .database import Instant, before, rows, unlocked

KEPT = timedelta(days=90)
MOST_READ = 100


@dataclass(frozen=True, slots=True)
class Deployed:
    """A release, and when it came."""

    release: str
    at: datetime


def note_deploy(release: str, now: Instant) -> None:
    """Write down that this release runs from now on, unless it did before. Rows that are older than KEPT are deleted.

    Waits for no lock: nothing of the table is unique.
    """
    if rows(Deploy).order_by("-pk").values_list("release", flat=True).first() != release:
        old = unlocked(rows(Deploy).filter(first_seen__lt=before(now, KEPT)).only("pk"), to_delete=True)
        rows(Deploy).filter(pk__in=[row.pk for row in old]).delete()
        rows(Deploy).create(release=release, first_seen=now)


def deploys_since(since: datetime) -> Sequence[Deployed]:
    """The deploys from then on, the oldest first."""
    newest = rows(Deploy).order_by("-pk").values_list("release", "first_seen")[:MOST_READ]
    found = [("", since), *reversed(newest)]
    return [Deployed(*row) for last, row in pairwise(found) if row[0] != last[0] and row[1] >= since]
