"""Where workflows have gone wrong, or could: cancellation half way, late additions, revival, `force_sync`, old rows."""

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.db import IntegrityError, transaction
from django.test import override_settings
from django.utils import timezone

from i3tasks import RESULT, chain, group, task
from i3tasks.core.outcome import Released, Success
from i3tasks.exceptions import ArgumentError, I3TasksError
from i3tasks.models import TaskExecution, TaskExecutionResult, TaskExecutionTry, TaskGroup
from i3tasks.store.audit import audit
from i3tasks.store.cancel import cancel
from i3tasks.store.groups import expire_groups
from i3tasks.store.health import health
from i3tasks.store.settle import settle
from i3tasks.types import I3TasksSettings
from tests.shop.flows import break_down, double, mourn, note, total, with_hook
from tests.shop.models import Order
from tests.shop.tasks import add
from tests.store.helpers import failure, lease, says

pytestmark = pytest.mark.django_db


@pytest.fixture
def inline() -> Iterator[None]:
    with override_settings(I3TASKS=I3TasksSettings(force_sync=True)):
        yield


def noted() -> list[str]:
    return list(Order.objects.order_by("pk").values_list("name", flat=True))


def waiting(name: str) -> TaskExecutionTry:
    """The try of the call that was made with this first argument."""
    tries = TaskExecutionTry.objects.filter(is_completed=False, claim_token__isnull=True)
    return next(item for item in tries.select_related("task_execution") if item.task_execution.task_args[:1] == [name])


def finish(name: str, value: Any = None) -> None:
    settle([says(lease(waiting(name))[0], Success(value))])


def fail_for_good(name: str) -> None:
    settle([says(lease(waiting(name))[0], failure())])


def called(name: str) -> list[list[Any]]:
    return list(TaskExecution.objects.filter(task_name=name).order_by("pk").values_list("task_args", flat=True))


def outcomes() -> dict[str, str | None]:
    return {row.task_args[0]: row.outcome for row in TaskExecution.objects.filter(task_name="note")}


class TestCancelling:
    def test_a_running_call_that_is_handed_back_ends(self) -> None:
        handle = note.delay("a")
        claimed = lease(waiting("a"))[0]
        handle.cancel()
        settle([says(claimed, Released())])
        assert outcomes() == {"a": "cancelled"}
        assert audit() == []

    def test_it_reaches_a_group_in_the_chain(self) -> None:
        handle = chain(note.s("a"), group(note.s("b"), chain(note.s("c"), note.s("d"))), note.s("e")).delay()
        finish("a")
        handle.cancel()
        assert outcomes() == {"a": "success", "b": "cancelled", "c": "cancelled"}
        assert TaskGroup.objects.get().status == "failed"

    def test_it_reaches_what_follows_a_group(self) -> None:
        handle = chain(group(note.s("a")), note.s("b"), note.s("c")).delay()
        finish("a")
        finish("b")
        handle.cancel()
        assert outcomes() == {"a": "success", "b": "success", "c": "cancelled"}

    def test_a_groups_reaches_the_steps_that_lead_to_its_members(self) -> None:
        inner = group(note.s("d"), chain(note.s("e"), note.s("f")))
        started = group(note.s("a"), chain(note.s("b"), note.s("c")), inner).then(note.s("done")).delay()
        started.cancel()
        assert outcomes() == dict.fromkeys("abde", "cancelled")
        assert set(TaskGroup.objects.values_list("status", flat=True)) == {"failed"}

    def test_a_groups_reaches_its_callback(self) -> None:
        started = group(note.s("a")).then(note.s("b")).delay()
        finish("a")
        started.cancel()
        assert outcomes() == {"a": "success", "b": "cancelled"}
        assert TaskGroup.objects.get().status == "success"

    def test_one_that_succeeds_all_the_same_is_the_last(self) -> None:
        handle = note.delay("a")
        claimed = lease(waiting("a"))[0]
        handle.cancel()
        settle([says(claimed, Success(None))])
        handle.then(note, "b")
        assert outcomes() == {"a": "success"}

    def test_a_group_does_not_wait_for_the_chain_behind_it(self) -> None:
        started = group(chain(note.s("a"), note.s("b")), note.s("c"), wait_for_all=True).otherwise(mourn).delay()
        claimed = lease(waiting("a"))[0]
        cancel([claimed.execution_id])
        settle([says(claimed, Success(None))])
        finish("c")
        started.refresh_from_db()
        assert (started.status, started.completed_count, started.failed_count) == ("failed", 1, 1)
        assert called("mourn") == [[claimed.execution_id]]

    def test_from_the_body_of_a_member(self, inline: None) -> None:
        """A body that cancels its own group, with members that have not begun."""
        started = group(call_off.s(), *(note.s(f"m{n}") for n in range(3))).otherwise(mourn).delay()
        assert started.status == "failed"
        assert [name.split(":")[0] for name in noted()] == ["mourned"]
        assert not TaskExecutionTry.objects.filter(is_completed=False).exists()


@task
def call_off() -> None:
    TaskGroup.objects.get().cancel()


class TestThen:
    def test_behind_a_group_before_at_and_after_its_end(self) -> None:
        handle = chain(note.s("a"), group(double.s(1), double.s(2))).delay().then(note, "one")
        finish("a")
        handle.then(note, "two", RESULT)
        for member in TaskExecutionTry.objects.filter(task_execution__task_name="double"):
            settle([says(lease(member)[0], Success(7))])
        handle.then(note, "three", RESULT)
        finish("one", 1)
        finish("two", 2)
        finish("three", 3)
        handle.then(note, "four", RESULT)
        assert called("note")[1:] == [["one"], ["two", 1], ["three", 2], ["four", 3]]

    def test_behind_a_group_with_nothing_after_it(self) -> None:
        handle = chain(note.s("a"), group(double.s(1), double.s(2))).delay()
        finish("a")
        for value, member in enumerate(TaskExecutionTry.objects.filter(task_execution__task_name="double")):
            settle([says(lease(member)[0], Success(value))])
        handle.then(note, "late", RESULT)
        assert called("note")[1:] == [["late", [0, 1]]]

    @pytest.mark.parametrize("is_over", [False, True])
    def test_on_a_workflow_that_begins_with_a_group(self, is_over: bool) -> None:
        handle = chain(group(note.s("a"))).delay()
        if is_over:
            finish("a", "A")
        handle.then(note, "late", RESULT)
        if not is_over:
            finish("a", "A")
        assert called("note")[1:] == [["late", ["A"]]]
        with pytest.raises(I3TasksError, match="begins with a group"):
            handle.retry()

    @pytest.mark.parametrize("moment", ["before", "hook runs", "hook is over"])
    def test_result_is_that_of_the_step_before_and_not_of_its_hook(self, moment: str) -> None:
        handle = with_hook.delay("x")
        append = {moment: lambda: handle.then(note, "end", RESULT)}
        append.get("before", str)()
        finish("x", "of x")
        append.get("hook runs", str)()
        finish("after", "of the hook")
        append.get("hook is over", str)()
        assert called("note") == [["after"], ["end", "of x"]]

    def test_after_a_failure_it_waits_for_another_try(self) -> None:
        handle = note.delay("a")
        fail_for_good("a")
        handle.then(note, "b")
        assert outcomes() == {"a": "failed"}
        assert handle.retry()
        finish("a")
        assert outcomes() == {"a": "success", "b": None}

    def test_a_step_counts_for_the_group_it_names(self) -> None:
        shared = TaskGroup.create(callback=note, total_count=2, args=["all"])
        note.delay("a").then(note, "b", __i3group__=shared)
        group(chain(note.s("c"), note.s("d", __i3group__=shared))).then(note.s("outer", RESULT)).delay()  # type: ignore[call-arg]
        for name in "abcd":
            finish(name, name.upper())
        waiting("all")
        finish("D", "D")  # passed on by the step that counts for the group around
        assert called("note")[-1] == ["outer", ["D"]]


class TestWhoIsToldOfAFailure:
    """`otherwise` is given a failed execution, wherever in the group it is, and whichever member ends last."""

    def test_a_member_of_an_inner_group_whose_last_member_succeeds(self) -> None:
        inner = group(note.s("a"), note.s("b"), wait_for_all=True)
        group(inner, note.s("c"), wait_for_all=True).otherwise(mourn).delay()
        fail_for_good("a")
        finish("b")
        finish("c")
        assert called("mourn") == [[execution_of("a").pk]]

    @pytest.mark.parametrize("first_to_end", ["cancelled", "failed"])
    def test_a_failed_member_rather_than_a_cancelled_one(self, first_to_end: str) -> None:
        inner = group(note.s("a"), chain(note.s("b"), note.s("x")), note.s("c"), wait_for_all=True)
        group(inner, note.s("d"), wait_for_all=True).otherwise(mourn).delay()
        if first_to_end == "failed":
            fail_for_good("b")
        cancel([execution_of("a").pk])
        if first_to_end == "cancelled":
            fail_for_good("b")
        finish("c")
        finish("d")
        assert called("mourn") == [[execution_of("b").pk]]
        assert audit() == []

    def test_another_failed_one_when_the_first_was_retried(self) -> None:
        group(note.s("a"), note.s("b"), note.s("c"), wait_for_all=True).otherwise(mourn).delay()
        fail_for_good("a")
        fail_for_good("b")
        assert handle_of(execution_of("a")).retry()
        finish("a")
        finish("c")
        assert called("mourn") == [[execution_of("b").pk]]

    def test_a_cancelled_one_when_none_has_failed(self) -> None:
        group(note.s("a"), note.s("b"), wait_for_all=True).otherwise(mourn).delay()
        cancel([execution_of("a").pk])
        finish("b")
        assert called("mourn") == [[execution_of("a").pk]]

    def test_an_unfinished_one_at_the_deadline_also_inside_a_chain(self) -> None:
        group(chain(note.s("a"), note.s("b")), deadline=60).otherwise(mourn).delay()
        TaskGroup.objects.update(deadline=timezone.now() - timedelta(seconds=1))
        expire_groups(10)
        assert called("mourn") == [[execution_of("a").pk]]


class TestStepsThatNeverRun:
    """A group whose member stands behind a failed step counts it as failed, also when it is added after the failure."""

    @pytest.mark.parametrize("end", ["fail", "cancel"])
    @pytest.mark.parametrize("wait_for_all", [True, False])
    def test_a_step_added_behind_a_failure(self, end: str, wait_for_all: bool) -> None:
        shared = TaskGroup.create(callback=note, total_count=1, args=["all"])
        TaskGroup.objects.update(wait_for_all=wait_for_all)
        handle = note.delay("a")
        fail_for_good("a") if end == "fail" else cancel([execution_of("a").pk])
        handle.then(note, "b", __i3group__=shared)
        shared.refresh_from_db()
        assert (shared.status, shared.completed_count, shared.failed_count) == ("failed", 0, 1)
        assert audit() == []

    def test_after_a_retry_the_group_waits_for_it_again(self) -> None:
        shared = TaskGroup.create(callback=note, total_count=2, args=["all"])
        TaskGroup.objects.update(wait_for_all=True)
        handle = note.delay("a")
        fail_for_good("a")
        handle.then(note, "b", __i3group__=shared)
        assert handle.retry()
        shared.refresh_from_db()
        assert (shared.status, shared.failed_count) == ("pending", 0)
        finish("a")
        finish("b")
        note.delay("c", __i3group__=shared)
        finish("c")
        waiting("all")
        shared.refresh_from_db()
        assert (shared.status, shared.completed_count, shared.failed_count) == ("success", 2, 0)
        assert audit() == []

    def test_a_member_of_a_group_behind_a_failure(self) -> None:
        shared = TaskGroup.create(callback=note, total_count=1, args=["all"])
        chain(note.s("a"), group(note.s("b", __i3group__=shared), note.s("c"))).delay()  # type: ignore[call-arg]
        fail_for_good("a")
        shared.refresh_from_db()
        assert (shared.status, shared.failed_count) == ("failed", 1)

    def test_a_step_behind_a_group_that_has_failed(self) -> None:
        shared = TaskGroup.create(callback=note, total_count=1, args=["all"])
        handle = chain(note.s("start"), group(note.s("a"), note.s("b"))).delay()
        finish("start")
        fail_for_good("a")
        handle.then(note, "c", __i3group__=shared)
        shared.refresh_from_db()
        assert (shared.status, shared.failed_count) == ("failed", 1)


class TestTheRowsChain:
    """`then` keeps the step in the `chain` of every row before it, as readers of the documented column expect."""

    def names(self, name: str) -> list[str]:
        return [step["args"][0] for step in execution_of(name).chain or []]

    def test_of_one_that_has_ended(self) -> None:
        handle = note.delay("a")
        finish("a")
        handle.then(note, "b")
        finish("b")
        handle.then(note, "c")
        finish("c")
        assert (self.names("a"), self.names("b"), self.names("c")) == (["b", "c"], ["c"], [])
        assert called("note") == [["a"], ["b"], ["c"]]
        assert audit() == []

    def test_of_one_whose_next_step_waits(self) -> None:
        handle = note.delay("a")
        finish("a")
        handle.then(note, "b").then(note, "c")
        assert (self.names("a"), self.names("b")) == (["b", "c"], ["c"])
        finish("b")
        finish("c")
        assert called("note") == [["a"], ["b"], ["c"]]


def execution_of(name: str) -> TaskExecution:
    return TaskExecution.objects.get(task_name="note", task_args=[name])


class TestRevival:
    def test_a_group_that_waits_for_all_waits_again(self) -> None:
        started = group(note.s("a"), note.s("b"), wait_for_all=True).then(note.s("all")).otherwise(mourn).delay()
        fail_for_good("a")
        revived = TaskExecution.objects.get(task_args=["a"])
        assert handle_of(revived).retry()
        finish("a")
        started.refresh_from_db()
        assert (started.status, started.completed_count, started.failed_count) == ("pending", 1, 0)
        finish("b")
        waiting("all")
        assert called("mourn") == []

    def test_who_failed_first_is_forgotten_when_he_succeeds(self) -> None:
        group(chain(note.s("a"), note.s("x")), note.s("b"), wait_for_all=True).otherwise(mourn).delay()
        fail_for_good("a")
        assert handle_of(TaskExecution.objects.get(task_args=["a"])).retry()
        finish("a")
        finish("x")
        fail_for_good("b")
        assert called("mourn") == [[TaskExecution.objects.get(task_args=["b"]).pk]]


def handle_of(execution: TaskExecution) -> Any:
    from i3tasks.calls.handles import ChainHandle

    return ChainHandle(TaskExecutionTry.objects.select_related("task_execution").get(task_execution=execution))


class TestGroups:
    def test_a_member_too_many_changes_nothing(self) -> None:
        shared = TaskGroup.create(callback=note, total_count=1, args=["all"])
        for name in "ab":
            note.delay(name, __i3group__=shared)
        finish("a")
        finish("b")
        assert called("note") == [["a"], ["b"], ["all"]]

    def test_the_first_failure_fails_it_and_later_successes_are_ignored(self) -> None:
        shared = TaskGroup.create(callback=note, total_count=3, args=["never"])
        for name in "abc":
            note.delay(name, __i3group__=shared)
        fail_for_good("a")
        finish("b")
        fail_for_good("c")
        shared.refresh_from_db()
        assert (shared.status, shared.failed_count, shared.completed_count) == (TaskGroup.STATUS_FAILED, 1, 0)
        assert ["never"] not in called("note")

    def test_callbacks_of_every_kind(self) -> None:
        for callback in (note, note.s("a"), note.build_chain("b"), chain(note.s("c"), note.s("d")), with_hook):
            given = {"args": ["x"]} if callback in (note, with_hook) else {}
            assert TaskGroup.create(callback, 0, **given).status == "success"
        with_group = TaskGroup.create(group(note.s("g1"), note.s("g2")), total_count=0)
        assert with_group.callback_task_name == "collect"
        assert TaskExecution.objects.count() == 6
        with pytest.raises(ValueError, match="step"):
            TaskGroup.create(chain(), 1)
        with pytest.raises(ValueError, match="step"):
            TaskGroup.create(note.delay("begun"), 1)
        with pytest.raises(ValueError, match="args"):
            TaskGroup.create(chain(note.s("a")), 1, kwargs={"x": 1})
        with pytest.raises(ArgumentError, match="missing a required argument"):
            TaskGroup.create(note, 1)
        with pytest.raises(ValueError, match="total_count"):
            TaskGroup.create(note, -1, ["a"])

    def test_an_empty_one_has_succeeded_when_it_is_given_back(self) -> None:
        assert group().delay().status == TaskGroup.STATUS_SUCCESS

    def test_the_deadline_fails_it_once(self) -> None:
        started = group(note.s("a"), chain(note.s("b"), note.s("c")), deadline=60).otherwise(mourn).delay()
        assert expire_groups(10) == []
        TaskGroup.objects.update(deadline=timezone.now() - timedelta(seconds=1))
        assert [task_try.task_execution.task_name for task_try in expire_groups(10)] == ["mourn"]
        assert expire_groups(10) == []
        finish("a")
        fail_for_good("b")
        started.refresh_from_db()
        assert (started.status, len(called("mourn"))) == ("failed", 1)

    def test_what_json_has_no_word_for_fails_the_step_that_asks_for_it(self, inline: None) -> None:
        group(odd.s(), odd.s()).then(note.s("joined", RESULT)).delay()
        assert noted() == []
        failed = TaskExecutionTry.objects.select_related("result").get(task_execution__task_name="note")
        assert failed.error_class == "i3tasks.exceptions.ResultUnavailable"
        assert "odd returned a dict, which JSON can't hold" in failed.result.result

    def test_what_json_has_no_word_for_harms_no_step_that_does_not_ask(self, inline: None) -> None:
        chain(odd.s(), note.s("next")).delay()
        group(odd.s(), odd.s()).then(note.s("joined")).delay()
        assert noted() == ["next", "joined"]


@task
def odd() -> dict[int, str]:
    return {1: "a"}


class TestInline:
    """`force_sync` and `sync_run` leave the rows that a worker leaves."""

    def test_an_unregistered_step_fails_by_itself(self, inline: None) -> None:
        handle = chain(note.s("a"), note.s("b"), note.s("c"))
        handle._steps[1] = {**handle._steps[1], "func_name": "gone"}
        handle.otherwise(mourn).delay()
        gone = TaskExecution.objects.get(task_name="gone")
        assert gone.outcome == "failed"
        assert noted() == ["a", f"mourned:{gone.pk}"]

    def test_a_deferred_call_runs_at_once(self, inline: None) -> None:
        assert add.using(run_after=3600).delay(1, 2).result(timeout=5) == 3

    @pytest.mark.parametrize("call", [lambda: clash.delay(), lambda: with_pytest_raises(clash.sync_run)])
    def test_a_database_error_is_recorded_also_in_the_callers_transaction(
        self, inline: None, call: Callable[[], Any]
    ) -> None:
        with transaction.atomic():
            call()
            Order.objects.create(name="after")
        assert TaskExecution.objects.get().outcome == "failed"
        assert "after" in noted()

    def test_sync_run_leads_on(self, inline: None) -> None:
        with_hook.sync_run("a")
        assert noted() == ["a", "after"]

    def test_sync_run_sends_what_follows_after_the_commit(
        self, sent: Any, django_capture_on_commit_callbacks: Any
    ) -> None:
        with django_capture_on_commit_callbacks(execute=True):
            with_hook.sync_run("a")
            assert sent.messages == []
        assert sent.try_ids == [waiting("after").pk]


@task(max_retries=0)
def clash() -> None:
    Order.objects.create(name="same")
    Order.objects.create(name="same")


def with_pytest_raises(function: Callable[[], Any]) -> None:
    with pytest.raises(IntegrityError):
        function()


class TestOldRows:
    """What django-i3tasks has left goes on."""

    def step(self, name: str) -> dict[str, Any]:
        return {"module_name": "tests.shop.flows", "func_name": "note", "args": [name], "kwargs": {}}

    def execution(self, name: str, **columns: Any) -> TaskExecution:
        row = TaskExecution.objects.create(
            task_path="tests.shop.flows", task_name="note", task_args=[name], task_kwargs={}, **columns
        )
        TaskExecutionTry.objects.create(task_execution=row)
        return row

    def test_a_chain(self) -> None:
        self.execution("a", chain=[self.step("b"), self.step("c")])
        for name in "abc":
            finish(name)
        assert outcomes() == dict.fromkeys("abc", "success")

    def test_a_group_with_members_of_both_times(self) -> None:
        shared = TaskGroup.objects.create(
            callback_task_path="tests.shop.flows",
            callback_task_name="note",
            callback_task_args=["all"],
            callback_chain=[self.step("after")],
            total_count=3,
            completed_count=1,
        )
        over = self.execution("a", task_group=shared)
        TaskExecutionTry.objects.update(is_completed=True, is_success=True, finished_at=timezone.now())
        TaskExecutionResult.objects.create(task_execution_try=over.tries.get(), result='"A"')
        self.execution("b", task_group=shared)
        note.delay("c", __i3group__=shared)
        for name in ("b", "c", "all", "after"):
            finish(name)
        shared.refresh_from_db()
        assert (shared.status, shared.completed_count) == ("success", 3)
        assert audit() == []

    def test_then_on_one_that_has_succeeded(self) -> None:
        over = self.execution("a")
        TaskExecutionTry.objects.update(is_completed=True, is_success=True, finished_at=timezone.now())
        handle_of(over).then(note, "b")
        waiting("b")

    def test_cancelling_a_group(self) -> None:
        shared = TaskGroup.objects.create(
            callback_task_path="tests.shop.flows", callback_task_name="note", total_count=2
        )
        self.execution("a", task_group=shared, chain=[self.step("b")])
        shared.cancel()
        assert (shared.status, outcomes()) == ("failed", {"a": "cancelled"})


def test_the_same_rows_by_hand_inline_and_in_both_spellings() -> None:
    """Signatures and documented calls; a worker and `force_sync`."""

    def shape() -> list[Any]:
        columns = ("task_path", "task_name", "task_args", "task_kwargs", "chain", "queue_name", "priority", "options")
        return list(TaskExecution.objects.order_by("pk").values_list(*columns, "outcome", "group_index"))

    def clean() -> None:
        TaskExecution.objects.all().delete()
        TaskGroup.objects.all().delete()
        Order.objects.all().delete()

    chain(note.s("a"), note.s("b"), note.s("c")).delay()
    by_signature = shape()
    clean()
    note.delay("a").then(note, "b").then(note, "c")
    assert shape() == by_signature
    for name in "abc":
        finish(name)
    by_worker = shape()
    clean()
    with override_settings(I3TASKS=I3TasksSettings(force_sync=True)):
        chain(note.s("a"), note.s("b"), note.s("c")).delay()
    assert shape() == by_worker


def test_a_branch_joins_its_results_beside_one_that_fails(inline: None) -> None:
    group(group(double.s(1), double.s(2)).then(total.s(RESULT)), break_down.s("x"), wait_for_all=True).then(
        note.s("never")
    ).delay()
    assert noted() == ["x"]
    assert TaskExecutionResult.objects.filter(result=6).exists()


@task(priority=7, queue_name="heavy")
def weighty(name: str) -> None: ...


def test_a_step_goes_where_its_task_or_its_call_says() -> None:
    steps = [weighty.s("a"), weighty.s("b"), weighty.using(priority=0, queue_name="default").s("c"), note.s("d")]
    chain(*steps).delay()
    for name in "abcd":
        finish(name)
    rows = TaskExecution.objects.order_by("pk").values_list("queue_name", "priority")
    assert list(rows) == [("heavy", 7), ("heavy", 7), ("default", 0), ("default", 0)]


@pytest.mark.django_db(transaction=True)
async def test_a_group_with_a_wrong_total_is_seen_by_audit_and_health_until_it_is_closed(sent: Any) -> None:
    made = await TaskGroup.acreate(callback=note, total_count=2, args=["all"])
    await note.adelay("a", __i3group__=made)
    whole = await group(chain(note.s("b"), note.s("c"))).adelay()
    await TaskGroup.objects.aupdate(updated_at=timezone.now() - timedelta(hours=1))
    assert await seen() == (0, 0)
    await sync_to_async(finish)("a")
    await TaskGroup.objects.aupdate(updated_at=timezone.now() - timedelta(hours=1))
    assert await seen() == (1, 1)
    await made.aclose()
    assert await seen() == (0, 0)
    assert (await TaskGroup.objects.aget(pk=whole.pk)).status == "pending"


async def seen() -> tuple[int, int]:
    """By the audit and by the health endpoint."""
    found = [finding for finding in await sync_to_async(audit)() if "no member is under way" in finding.rule]
    problems = (await health(timezone.now()))["problems"]
    return sum(finding.count for finding in found), sum("wait for members" in problem for problem in problems)
