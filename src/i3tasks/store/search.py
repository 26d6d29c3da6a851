"""Finding executions: one definition of the filter for the command line, the board and the admin.

A search looks at candidates in the order of an index, newest first, some thousands at a time, and asks of these alone
whether they match. So no statement reads a table, however many rows there are: unfinished
executions are candidates by the indexes of unfinished tries, failed and cancelled ones by indexes of their own, and
all others by their task, by when they were asked for, or by id. A page and a count stop after MOST_LOOKED_AT
candidates, and say so.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import reduce
from typing import Any, NamedTuple

from django.db.models import Q

from ..exceptions import SearchError
from ..models import HEAVY, TaskExecution
from . import search_terms
from .database import Rows, rows
from .search_conditions import any_of, failed_with, in_queue, named, tried, with_argument, within
from .search_indexes import LARGEST_CHUNK, Chunk, IndexScan, Place, following, sources
from .search_terms import ALWAYS, Keys, Window
from .states import State, telling_try

MOST_COUNTED = 10_000
MOST_LOOKED_AT = 20_000
"""Most candidates that a page or a count looks at."""
FIELDS = ("state", "task", "queue", "asked", "finished", "id", "argument", "error", "min_tries")


@dataclass(frozen=True, slots=True)
class Count:
    """How many there are; with `is_cut` at least so many."""

    number: int
    is_cut: bool = False

    def __str__(self) -> str:
        return f"{self.number:,}+" if self.is_cut else f"{self.number:,}"


@dataclass(frozen=True, slots=True)
class Page:
    """Some of the executions that a search finds. Each has `latest`: see `states.telling_try`."""

    rows: list[Any]
    following: str = ""
    """The `after` of the next page; "" at the end."""
    is_cut: bool = False
    """Whether MOST_LOOKED_AT candidates were looked at before the page was full; the next page looks further."""


class Hit(NamedTuple):
    """An execution that matches, and the place of its candidate."""

    execution_id: int
    place: str


@dataclass(frozen=True, slots=True)
class Search:
    """The filter of executions: those that match all of the fields. A search without any field finds all."""

    states: tuple[State, ...] = ()
    task: str = ""
    queue: str = ""
    asked: Window = ALWAYS
    finished: Window = ALWAYS
    keys: Keys | None = None
    argument: str = ""
    error: str = ""
    min_tries: int = 0  # how many tries have begun, at least

    @classmethod
    def parse(cls, asked: Mapping[str, Any], now: datetime) -> Search:
        """The search that these FIELDS describe, each a text or several; empty ones count as missing.

        Raises SearchError, whose `field` names the one that is wrong.
        """
        given = {name: [text for text in _texts(value) if text.strip()] for name, value in asked.items()}
        found = {name: texts for name, texts in given.items() if texts}
        search = cls()
        for name, texts in found.items():
            try:
                search = search._with(name, texts, now)
            except SearchError as error:
                raise SearchError(str(error), field=name) from None
        return search

    def _with(self, name: str, texts: Sequence[str], now: datetime) -> Search:
        if name not in FIELDS:
            raise SearchError(f"There is no filter {name!r}. There are: {', '.join(FIELDS)}.")
        if name == "state":
            return replace(self, states=search_terms.states(texts))
        if name == "id":
            return replace(self, keys=search_terms.keys(texts))
        text = search_terms.one(texts)
        value: Any = text
        if name in ("asked", "finished"):
            value = search_terms.window(text, now)
        elif name == "min_tries":
            value = search_terms.number(text)
        return replace(self, **{name: value})

    def as_fields(self) -> dict[str, str]:
        """The fields as text that `parse` reads as this very search at any later time, for addresses and logs."""
        states = ",".join(state.value for state in self.states)
        fields = {"state": states, "id": "" if self.keys is None else str(self.keys)}
        fields |= {name: str(getattr(self, name)) for name in FIELDS if name not in fields and getattr(self, name)}
        return {name: text for name, text in fields.items() if text}

    def __str__(self) -> str:
        return " ".join(f"{name}={text}" for name, text in self.as_fields().items()) or "all"

    @property
    def is_by_end(self) -> bool:
        """Whether nothing is asked for but states, and when it ended."""
        return replace(self, states=(), finished=ALWAYS) == Search()

    def condition(self, now: datetime) -> Q:
        """The condition for executions that match, to be asked of rows that an index has chosen."""
        parts = [
            any_of(state.condition(now) for state in self.states),
            named(self.task),
            in_queue(self.queue),
            within("created_at", self.asked),
            within("finished_at", self.finished),
            failed_with(self.error),
            with_argument(self.argument),
            tried(self.min_tries),
        ]
        return reduce(lambda one, other: one & other, parts)

    def page(self, now: datetime, *, limit: int = 50, after: str = "") -> Page:
        """The first `limit` of them, or those that follow the page whose `following` is given."""
        walk = Walk(self, now, after=after, chunk=limit + 1, budget=MOST_LOOKED_AT)
        hits: list[Hit] = []
        for hit in walk:
            hits.append(hit)
            if len(hits) > limit:
                break
        has_more = len(hits) > limit
        following = hits[limit - 1].place if has_more else walk.place if walk.is_cut else ""
        return Page(loaded([hit.execution_id for hit in hits[:limit]]), following, walk.is_cut and not has_more)

    def count(self, now: datetime, *, most: int = MOST_COUNTED) -> Count:
        """How many there are, counted up to `most`."""
        if self == Search():
            return _bounded(rows(TaskExecution).order_by()[: most + 1].count(), most)
        walk = Walk(self, now, budget=MOST_LOOKED_AT)
        number = 0
        for ids in walk.ids():
            number += len(ids)
            if number > most:
                break
        return Count(number, is_cut=True) if walk.is_cut and number <= most else _bounded(number, most)

    def ids(self, now: datetime, *, most: int = MOST_COUNTED) -> list[int]:
        """The ids of up to `most` of them, among as many candidates as a page looks at; newest first."""
        found: list[int] = []
        for ids in Walk(self, now, budget=MOST_LOOKED_AT).ids():
            found += ids
            if len(found) >= most:
                break
        return found[:most]


Found = dict[int, Place]
"""Executions that match, and the places of their candidates."""


@dataclass(slots=True)
class Walk:
    """Goes through all executions that a search finds, in chunks of candidates; each execution once.

    `after` is the place to go on from. With a `budget`, it ends after so many candidates, and `is_cut` says so.
    """

    search: Search
    now: datetime
    after: str = ""
    chunk: int = LARGEST_CHUNK
    budget: int | None = None
    place: str = ""
    looked_at: int = 0
    is_cut: bool = False
    _seen: set[int] = field(default_factory=set)

    def __iter__(self) -> Iterator[Hit]:
        for number, found in self._chunks(has_places=True):
            for execution_id, (key, pk) in found.items():
                yield Hit(execution_id, _write_place(number, key, pk))

    def ids(self) -> Iterator[list[int]]:
        """The ids alone, some at a time: to read and write ten thousand places takes longer than to find them."""
        for _, found in self._chunks(has_places=False):
            yield [*found]

    def _chunks(self, *, has_places: bool) -> Iterator[tuple[int, Found]]:
        """The number of a source, and what some of its candidates have brought."""
        first, key, pk = _read_place(self.after) if self.after else (0, "", 0)
        places = list(sources(self.search, self.now))
        if first >= len(places):
            raise _unreadable()
        for number, source in enumerate(places[first:], first):
            after = (_key(source, key), pk) if self.after and number == first else None
            for found in self._through(number, source, after, has_places):
                yield number, found
            if self.is_cut:
                return

    def _through(self, number: int, source: IndexScan, after: Place | None, has_places: bool) -> Iterator[Found]:
        size = min(self.chunk, source.most)
        while True:
            if source.is_own:
                found, last = self._own(source, after, size, has_places)
            else:
                found, last = self._of_tries(source, after, size)
            yield self._new(found)
            if last is None:
                return
            after = last
            self.looked_at += size
            self.place = _write_place(number, *after)
            if self.budget is not None and self.looked_at >= self.budget:
                self.is_cut = True
                return
            size = min(size * 4, source.most)

    def _new(self, found: Iterable[tuple[Place, int]]) -> Found:
        """What has not been found before, with the place of its first candidate."""
        new: Found = {}
        for place, execution_id in found:
            if execution_id not in self._seen:
                new.setdefault(execution_id, place)
        self._seen.update(new)
        return new

    def _own(self, source: IndexScan, after: Place | None, size: int, has_places: bool) -> Chunk:
        """Those that match among the next `size` executions, and the last of these; None at the end."""
        if source.all_match and not has_places:
            return _whole_chunk(source, after, size)
        candidates, last = _chunk(source, after, size)
        found = candidates.filter(self.search.condition(self.now))
        if not has_places:
            return [((None, pk), pk) for pk in found.values_list("pk", flat=True)], last
        return [((place, pk), pk) for place, pk in found.values_list("place", "pk")], last

    def _of_tries(self, source: IndexScan, after: Place | None, size: int) -> Chunk:
        """The same of the executions of the next `size` tries."""
        fields = ("place", "pk", "task_execution_id", "counts")
        if source.narrows is None:
            candidates = list(following(source, after).values_list(*fields)[:size])
            last = (candidates[-1][0], candidates[-1][1]) if len(candidates) == size else None
        else:
            lying, last = _chunk(source, after, size)
            candidates = list(lying.filter(source.narrows).values_list(*fields))
        asked = {execution_id for _, _, execution_id, counts in candidates if counts} - self._seen
        meant = matching(self.search, asked, self.now)
        found = [((place, pk), own) for place, pk, own, counts in candidates if counts and own in meant]
        return found, last


def _chunk(source: IndexScan, after: Place | None, size: int) -> tuple[Rows, Place | None]:
    """The next `size` candidates, and the place of the last one; None at the end."""
    candidates = following(source, after)
    last: Any = candidates.values_list("place", "pk")[size - 1 : size].first()
    if last is not None:
        candidates = candidates.filter(place__gte=last[0]).exclude(place=last[0], pk__lt=last[1])
    return candidates, last


def _whole_chunk(source: IndexScan, after: Place | None, size: int) -> Chunk:
    """The same where all match: one statement reads their ids, and a second one the place of the last."""
    ids = list(following(source, after).values_list("pk", flat=True)[:size])
    last = following(source, None).filter(pk=ids[-1]).values_list("place", "pk") if len(ids) == size else None
    return [((None, pk), pk) for pk in ids], None if last is None else last.first()


def matching(search: Search, ids: Iterable[int], now: datetime) -> set[int]:
    """Those of the executions that match at this moment. Keys in the search do not count."""
    found = rows(TaskExecution).filter(pk__in=[*ids]).filter(search.condition(now))
    return set(found.values_list("pk", flat=True))


def loaded(ids: Sequence[int]) -> list[Any]:
    """The executions, in this order, without their heavy columns and with their `latest` try."""
    found = rows(TaskExecution).filter(pk__in=ids).defer(*HEAVY).prefetch_related(telling_try())
    by_id = {execution.pk: execution for execution in found} if ids else {}
    return [by_id[pk] for pk in ids if pk in by_id]


def _write_place(number: int, key: Any, pk: int) -> str:
    return f"{number}~{key.isoformat() if isinstance(key, datetime) else key}~{pk}"


def _read_place(text: str) -> tuple[int, str, int]:
    """The source's number, the key and the id of a place that `_write_place` wrote. Raises SearchError.

    Any text may come here: it is part of an address.
    """
    parts = text.split("~")
    if len(parts) != 3:
        raise _unreadable()
    return _whole(parts[0]), parts[1], _whole(parts[2])


def _key(source: IndexScan, text: str) -> Any:
    """The value in this source's index. Raises SearchError."""
    if source.is_by_id:
        return _whole(text)
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is not None:
            return moment.astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    raise _unreadable()


def _whole(text: str) -> int:
    if not (text.isascii() and text.isdecimal()) or len(text) > len(str(search_terms.LARGEST_ID)):
        raise _unreadable()
    if int(text) > search_terms.LARGEST_ID:
        raise _unreadable()
    return int(text)


def _unreadable() -> SearchError:
    return SearchError("This page's place can't be read: begin with the first page.", field="after")


def _texts(value: Any) -> list[str]:
    return [str(value)] if isinstance(value, str) or not isinstance(value, Iterable) else [str(one) for one in value]


def _bounded(number: int, most: int) -> Count:
    return Count(min(number, most), is_cut=number > most)
