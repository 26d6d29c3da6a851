"""Random workflows, a driver that runs them step by step on the store, and an oracle that says what must come of it."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from itertools import count
from typing import Any

from django.utils import timezone

from i3tasks import RESULT, chain, group, task
from i3tasks.calls.handles import ChainHandle
from i3tasks.core.clock import SYSTEM_CLOCK
from i3tasks.core.outcome import Released, Success
from i3tasks.models import TaskExecution, TaskExecutionTry, TaskGroup
from i3tasks.store.ages import Ages
from i3tasks.store.cancel import cancel, retry_failed
from i3tasks.store.claims import claim
from i3tasks.store.expiry import expire_leases
from i3tasks.store.requests import STALE, Claimed, Refusal, Settled
from i3tasks.store.retention import clean
from i3tasks.store.settle import settle
from i3tasks.store.slices import open_slice
from tests.store.helpers import at, failure, request, says

# --------------------------------------------------------------------------------------------- tasks and their shape


@task
def hook(of: list[Any]) -> list[Any]:
    return ["hook", of]


@task
def step(name: str, value: Any = None) -> list[Any]:
    return [name, value]


@task(on_success=hook.s(RESULT))
def hooked(name: str, value: Any = None) -> list[Any]:
    return [name, value]


@task
def told(failed_execution_id: int, tag: str) -> None: ...


@dataclass(frozen=True)
class Leaf:
    """A call. `wants`: it is given what the step before returned; `tag`: of the callback that its failure calls."""

    name: str
    wants: bool = False
    is_hooked: bool = False
    tag: str | None = None

    def canvas(self) -> Any:
        made: Any = hooked if self.is_hooked else step
        if self.tag:
            made = made.using(on_failure=told.s(self.tag))  # type: ignore[call-arg]
        return made.s(self.name, RESULT) if self.wants else made.s(self.name)


@dataclass(frozen=True)
class Group:
    members: tuple[Node, ...]
    then: tuple[Node, ...] = ()
    wait_for_all: bool = False
    tag: str | None = None

    def canvas(self) -> Any:
        made = group((member.canvas() for member in self.members), wait_for_all=self.wait_for_all)
        for follower in self.then:
            made = made.then(follower.canvas())
        return made.otherwise(told.s(self.tag)) if self.tag else made  # type: ignore[call-arg]


@dataclass(frozen=True)
class Chain:
    parts: tuple[Node, ...]
    tag: str | None = None

    def canvas(self) -> Any:
        made = chain(*(part.canvas() for part in self.parts))
        return made.otherwise(told.s(self.tag)) if self.tag else made  # type: ignore[call-arg]


Node = Leaf | Group | Chain


class Shapes:
    """Makes random workflows."""

    def __init__(self, choose: random.Random, prefix: str = "") -> None:
        self._choose = choose
        self._prefix = prefix
        self._numbers = count()

    def workflow(self, depth: int = 3) -> Chain:
        return Chain(self._parts(depth, has_before=False), self._tag())

    def leaf(self, has_before: bool) -> Leaf:
        wants = has_before and self._choose.random() < 0.7
        return Leaf(f"{self._prefix}s{next(self._numbers)}", wants, self._choose.random() < 0.15, self._tag())

    def _node(self, depth: int, has_before: bool) -> Node:
        kind = self._choose.random()
        if depth == 0 or kind < 0.5:
            return self.leaf(has_before)
        if kind < 0.65:
            return Chain(self._parts(depth - 1, has_before), self._tag())
        members = tuple(self._node(depth - 1, has_before) for _ in range(self._choose.choice([0, 1, 2, 2, 3, 4])))
        then = (self._node(depth - 1, True),) if self._choose.random() < 0.6 else ()
        return Group(members, then, self._choose.random() < 0.4, self._tag())

    def _parts(self, depth: int, has_before: bool) -> tuple[Node, ...]:
        number = self._choose.randint(1, 3)
        return tuple(self._node(depth, has_before or index > 0) for index in range(number))

    def _tag(self) -> str | None:
        return f"t{next(self._numbers)}" if self._choose.random() < 0.3 else None


# ------------------------------------------------------------------------------------------------------- the driver


@dataclass
class Moods:
    """How often what happens. `failing`: of the bodies; the others are accidents that must change nothing."""

    failing: float = 0.1
    cancelled: float = 0.03
    accidents: float = 0.3
    retried: float = 0.0
    cleaned: float = 0.0


class Driver:
    """Claims and settles, in random order and batches, until nothing is left to run."""

    def __init__(self, choose: random.Random, moods: Moods) -> None:
        self._choose = choose
        self.moods = moods
        self.retried = 0
        self.ran: Counter[str] = Counter()
        self.before_cleaning: Callable[[], None] = lambda: None  # for what a test must see before it may be deleted

    def open(self) -> list[TaskExecutionTry]:
        waiting = TaskExecutionTry.objects.filter(is_completed=False, claim_token__isnull=True)
        return list(waiting.select_related("task_execution").order_by("pk"))

    def turn(self) -> bool:
        """One batch. False: there is nothing left."""
        waiting = self.open()
        if not waiting:
            return open_slice() is not None
        if self._happens():
            open_slice()
        self._choose.shuffle(waiting)
        self._maybe_cancel(waiting)
        self._maybe_retry_or_clean()
        batch = self._claimed(waiting[: self._choose.randint(1, 5)])
        self._maybe_cancel(waiting)
        while batch:
            some = [batch.pop() for _ in range(self._choose.randint(1, len(batch)))]
            self._settle(some)
        return True

    def _maybe_cancel(self, tries: Sequence[TaskExecutionTry]) -> None:
        if self._choose.random() < self.moods.cancelled * len(tries):
            cancelled = self._choose.choice(tries).task_execution
            if cancelled.task_name in ("step", "hooked", "hook"):
                cancel([cancelled.pk])

    def _maybe_retry_or_clean(self) -> None:
        """Try what has failed again, and delete what is over, for both of which any instant must do."""
        if self._choose.random() < self.moods.retried:
            ended = TaskExecution.objects.filter(outcome__in=["failed", "cancelled"], task_name__in=["step", "hooked"])
            if ended:
                self.retried += 1
                retry_failed([self._choose.choice(list(ended.order_by("pk"))).pk], now=timezone.now())
        if self._choose.random() < self.moods.cleaned:
            self.before_cleaning()
            clean(Ages(failed=timedelta(days=1), other=timedelta()), now=timezone.now() + timedelta(seconds=1))

    def _claimed(self, tries: Sequence[TaskExecutionTry]) -> list[Claimed]:
        answers = claim([request(task_try) for task_try in tries])
        if self._happens():  # the message comes twice
            assert all(isinstance(answer, Refusal) for answer in claim([request(task_try) for task_try in tries]))
        return [answer for answer in answers if isinstance(answer, Claimed)]

    def _settle(self, batch: Sequence[Claimed]) -> None:
        settlements = [says(claimed, self._outcome(claimed)) for claimed in batch]
        if self._happens() and batch[0].try_number < 3:  # the worker dies; its last words come too late
            TaskExecutionTry.objects.filter(pk=batch[0].try_id).update(lease_until=timezone.now() - timedelta(hours=1))
            expire_leases(10, clock=SYSTEM_CLOCK)
            TaskExecutionTry.objects.update(run_after=None)
            assert settle(settlements[:1]) == [STALE]
            settlements = settlements[1:]
        if self._happens():
            stale = replace(settlements[0], token=request(self._any_try()).token) if settlements else None
            assert stale is None or settle([stale]) == [STALE]
        repeat = 1 + self._happens()
        for answer in settle([*settlements, *settlements[:1]]) if settlements else []:
            assert isinstance(answer, Settled)
        if repeat == 2 and settlements:  # COMMIT's reply was lost
            before = TaskExecution.objects.count()
            settle([item for item in settlements if not isinstance(item.outcome, Released)])
            assert TaskExecution.objects.count() == before

    def _outcome(self, claimed: Claimed) -> Any:
        if claimed.func_name == "told":
            return Success(None)
        if claimed.func_name == "collect":
            return Success(claimed.args[0])
        if self._happens() and claimed.try_number < 3:
            return self._choose.choice([Released(), failure(delay=0)])
        key = key_of(claimed.func_name, claimed.args)
        self.ran[key] += 1
        if self._choose.random() < self.moods.failing:
            return failure()
        if claimed.func_name == "hook":
            return Success(["hook", *claimed.args])
        return Success([*claimed.args, None][:2])

    def _any_try(self) -> TaskExecutionTry:
        return TaskExecutionTry.objects.select_related("task_execution").earliest("pk")

    def _happens(self) -> bool:
        return self._choose.random() < self.moods.accidents


def key_of(func_name: str, args: Sequence[Any]) -> str:
    return f"hook of {args[0][0]}" if func_name == "hook" else str(args[0])


# ------------------------------------------------------------------------------------------------------- the oracle


@dataclass
class Reckoning:
    """What must be so at the end, given how each body that ran has ended."""

    fates: dict[str, str]
    results: dict[str, Any] = field(default_factory=dict)
    reached: Counter[str] = field(default_factory=Counter)
    told: Counter[str] = field(default_factory=Counter)
    told_of_failures: set[str] = field(default_factory=set)
    """Callbacks that must be given a failed execution, since one had failed when their group was decided."""
    failures: int = 0
    groups: Counter[tuple[int, str]] = field(default_factory=Counter)

    def sequence(self, parts: Sequence[Leaf | Group], value: Any) -> tuple[bool, Any]:
        """Whether the last part succeeded, and what it returned."""
        for index, part in enumerate(parts):
            is_last = index == len(parts) - 1
            if isinstance(part, Group):
                succeeded, value = self._group(part, value)
                goes_on = succeeded
            else:
                succeeded, goes_on, value = self._leaf(part, value)
            if is_last:
                return succeeded, value
            if not goes_on:
                return False, None
        raise AssertionError("an empty sequence")

    def _leaf(self, leaf: Leaf, value: Any) -> tuple[bool, bool, Any]:
        fate = self._fate(leaf.name)
        if fate == "failed" and leaf.tag:
            self.told[leaf.tag] += 1
        if not fate.startswith("success"):
            return False, False, None
        result = self.results[leaf.name] = [leaf.name, value if leaf.wants else None]
        if not leaf.is_hooked or fate != "success":
            return True, fate == "success", result
        of_hook = self._fate(f"hook of {leaf.name}")
        if of_hook.startswith("success"):
            self.results[f"hook of {leaf.name}"] = ["hook", result]
        return True, of_hook == "success", result

    def _group(self, part: Group, value: Any) -> tuple[bool, Any]:
        before = self.failures
        ends = [self.sequence(flat(member), value) for member in part.members]
        if not part.wait_for_all:
            self.failures = before  # it may have been decided by a cancellation that came earlier
        elif part.tag and self.failures > before:
            self.told_of_failures.add(part.tag)
        succeeded = all(ok for ok, _ in ends)
        self.groups[len(ends), "success" if succeeded else "failed"] += 1
        if not succeeded and part.tag:
            self.told[part.tag] += 1
        return succeeded, [result for _, result in ends]

    def _fate(self, key: str) -> str:
        self.reached[key] += 1
        assert key in self.fates, f"{key} should have been called"
        self.failures += self.fates[key] == "failed"
        return self.fates[key]


def flat(node: Node) -> list[Leaf | Group]:
    """The parts that follow one another; a chain's failure callback is that of each part without one."""
    if isinstance(node, Leaf):
        return [node]
    if isinstance(node, Group):
        return [replace(node, then=()), *(part for follower in node.then for part in flat(follower))]
    parts = [part for inner in node.parts for part in flat(inner)]
    return [replace(part, tag=part.tag or node.tag) for part in parts]


def fates() -> dict[str, str]:
    """How each execution ended, by what it was called for; no two were called for the same."""
    ended: dict[str, str] = {}
    for execution in TaskExecution.objects.filter(task_name__in=["step", "hooked", "hook"]):
        key = key_of(execution.task_name, execution.task_args)
        assert key not in ended, f"{key} was called twice"
        ended[key] = f"{execution.outcome}{' but cancelled' if execution.cancel_requested_at else ''}"
    return {key: "cancelled" if fate.startswith("cancelled") else fate for key, fate in ended.items()}


def start(workflow: Chain) -> ChainHandle[Any]:
    handle: ChainHandle[Any] = workflow.canvas().delay()
    return handle


def results() -> dict[str, Any]:
    """What each execution that succeeded is recorded to have returned."""
    tries = TaskExecutionTry.objects.filter(is_success=True).exclude(task_execution__task_name__in=["told", "collect"])
    return {
        key_of(task_try.task_execution.task_name, task_try.task_execution.task_args): task_try.result.result
        for task_try in tries.select_related("task_execution", "result")
    }


def told_of() -> Counter[str]:
    calls = TaskExecution.objects.filter(task_name="told")
    return Counter(call.task_args[1] for call in calls)


def groups() -> Counter[tuple[int, str]]:
    return Counter(TaskGroup.objects.values_list("total_count", "status"))


__all__ = [
    "Chain",
    "Driver",
    "Leaf",
    "Moods",
    "Reckoning",
    "Shapes",
    "at",
    "fates",
    "flat",
    "groups",
    "results",
    "start",
    "step",
    "told_of",
]
