"""How long finished work is kept, by I3TASKS or by a caller's choice; and the condition for rows that are older.

An age counts from the creation of an execution (`autoclean_older_than`) or from its end (`retention`). Rows that ended
long ago were created before that, so both are found by the index on `created_at`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import reduce
from operator import or_

from django.db.models import Q

from ..conf import get_config
from ..types import Retention
from .search_conditions import in_other_queues, in_queue
from .workflow_links import LONGEST_DELIVERY

Ends = Sequence[tuple[Q, str]]
"""Rows that ended in some way, and the column that says when."""


@dataclass(frozen=True, slots=True)
class Ages:
    """The ages at which finished work is deleted. None: it is kept, unless a comment names an age that counts."""

    failed: timedelta | None  # None: `other`
    other: timedelta | None  # None: what has not failed is kept
    cancelled: timedelta | None = None  # None: `other`
    from_end: bool = False  # else from the creation
    queues: Mapping[str, Ages] = field(default_factory=dict)
    """Queues that have ages of their own."""
    only_queue: str = ""
    """Only executions of this queue are old."""

    @classmethod
    def of(
        cls, older_than: timedelta | None = None, failed_older_than: timedelta | None = None, queue: str = ""
    ) -> Ages | None:
        """The ages of I3TASKS, with those given in their place; None when nothing has an age.

        `older_than` stands for all but the ages that I3TASKS gives failures. With `queue`, only its executions count.
        """
        settings = get_config().settings
        if settings.retention is None:
            whole = cls(settings.autoclean_failed_older_than, settings.autoclean_older_than)
        else:
            whole = cls._after_the_end(settings.retention)
        own = {one.queue_name: one.retention for one in settings.queues if one.retention is not None}
        queues = {name: cls._after_the_end(kept)._with(older_than, failed_older_than) for name, kept in own.items()}
        whole = replace(whole._with(older_than, failed_older_than), queues=queues, only_queue=queue)
        return whole if any(True for _ in whole.rules()) else None

    @classmethod
    def _after_the_end(cls, kept: Retention | timedelta) -> Ages:
        kept = kept if isinstance(kept, Retention) else Retention(kept)
        return cls(kept.failed, kept.succeeded, kept.cancelled, from_end=True)

    def _with(self, older_than: timedelta | None, failed_older_than: timedelta | None) -> Ages:
        ages = self if failed_older_than is None else replace(self, failed=failed_older_than)
        return ages if older_than is None else replace(ages, other=older_than, cancelled=None)

    @property
    def of_failed(self) -> timedelta | None:
        return self.other if self.failed is None else self.failed

    @property
    def of_cancelled(self) -> timedelta | None:
        return self.other if self.cancelled is None else self.cancelled

    @property
    def unfailed(self) -> timedelta:
        """The age of work that has not failed; without one, that of failures."""
        age = self.of_failed if self.other is None else self.other
        assert age is not None
        return age

    def rules(self) -> Iterator[tuple[Q, Ages]]:
        """The ages that count, and for which executions."""
        if self.only_queue:
            all_of_them = [(in_queue(self.only_queue), self.queues.get(self.only_queue, self))]
        else:
            all_of_them = [(in_other_queues(self.queues), self)]
            all_of_them += [(in_queue(name), ages) for name, ages in self.queues.items()]
        return ((queue, ages) for queue, ages in all_of_them if ages._has_any)

    @property
    def _has_any(self) -> bool:
        return self.other is not None or self.failed is not None

    @property
    def of_no_queue(self) -> Ages:
        """The ages of groups and ticks: those of I3TASKS; if it has none, those of the queue that keeps for longest."""
        return self if self._has_any else max(self.queues.values(), key=lambda ages: ages.unfailed)

    def dead_before(self, now: datetime) -> datetime:
        """Unfinished rows that were created before this instant are deleted, if nothing will ever finish them."""
        return now - max(self.unfailed, LONGEST_DELIVERY)

    def old(self, now: datetime, failed: Ends, succeeded: Ends, cancelled: Ends, dead: Callable[[Ages], Q]) -> Q:
        """Rows that ended in one of these ways and have reached its age; and the rows that `dead` finds."""
        kinds = ((failed, self.of_failed), (succeeded, self.other), (cancelled, self.of_cancelled))
        aged = (self._since(how, column, now - age) for ends, age in kinds if age is not None for how, column in ends)
        return reduce(or_, aged, dead(self))

    def _since(self, how: Q, column: str, before: datetime) -> Q:
        column = column if self.from_end else "created_at"
        return how & Q(**{f"{column}__lt": before})

    def latest(self, now: datetime) -> datetime:
        """Rows that are created from this instant on are not old, in whatever way they ended."""
        ages = [age for age in (self.of_failed, self.other, self.of_cancelled) if age is not None]
        return max(self.dead_before(now), *(now - age for age in ages))


def old_of_all(
    ages: Ages, now: datetime, failed: Ends, succeeded: Ends, cancelled: Ends, dead: Callable[[Ages], Q]
) -> Q:
    """`Ages.old` for executions of all queues, each by the ages of its queue."""
    rules = list(ages.rules())
    either = reduce(or_, (queue & one.old(now, failed, succeeded, cancelled, dead) for queue, one in rules))
    # The latest of the instants is repeated alone: with it, the index on `created_at` can be used.
    return either & Q(created_at__lt=max(one.latest(now) for _, one in rules))
