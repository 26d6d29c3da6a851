"""The commands that look at executions and act on them: what they print, whom they mean, and how they end."""

from __future__ import annotations

import io
import json
import re
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from i3tasks.cli import COMMANDS
from i3tasks.core.outcome import Success
from i3tasks.management.commands import i3tasks_tail
from i3tasks.models import TaskExecution, TaskExecutionTry
from i3tasks.store.live_events import Following
from i3tasks.store.pauses import pause
from i3tasks.store.search import Search
from i3tasks.store.settle import settle
from i3tasks.store.stacks import TakenStack, note_stacks
from tests.shop.tasks import add, fail
from tests.store.helpers import ADD, enqueue, failure, lease, says
from tests.support.history import a_try, ago, execution, finished

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("sent")]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def run(command: str, *arguments: object, stream: io.StringIO | None = None, **options: Any) -> tuple[str, int]:
    """What a command prints, and its exit code."""
    stream = stream or io.StringIO()
    try:
        call_command(COMMANDS[command][0], *map(str, arguments), stdout=stream, **options)
    except SystemExit as end:
        return stream.getvalue(), int(str(end.code))
    except CommandError as error:
        return f"{stream.getvalue()}{error}", error.returncode
    return stream.getvalue(), 0


def test_list_shows_what_the_filter_finds() -> None:
    enqueue()
    failed = a_try(
        "failed",
        ago(hours=3),
        of=execution(outcome="failed", finished_at=ago()),
        error_class="shop.CardDeclined",
        result="no money",
    )

    output, code = run("list", "--state", "failed,cancelled", "--error", "CardDeclined")

    head, line = output.splitlines()
    assert code == 0
    assert head.split()[:4] == ["id", "state", "task", "queue"]
    assert line.split()[:4] == [str(failed.task_execution_id), "failed", "app.tasks.send_email", "default"]
    assert line.endswith("CardDeclined: no money")
    assert run("list", "--task", "nothing") == ("None matches.\n", 0)
    assert run("list", "--count") == ("2\n", 0)


def test_list_as_json_says_all_that_is_known() -> None:
    (task_try,) = enqueue()
    settle([says(lease(task_try)[0], failure(delay=60))])

    [row] = json.loads(run("list", "--json")[0])

    execution = task_try.task_execution
    assert (row["id"], row["uuid"], row["state"]) == (execution.pk, str(execution.uuid), "retrying")
    assert (row["task"], row["queue"], row["tries"]) == ("tests.shop.tasks.add", "default", 2)
    assert (row["error_class"], row["error"]) == ("shop.CardDeclined", "no money")
    assert row["next_at"] is not None
    assert json.loads(run("list", "--json", "--count")[0]) == {"count": 1, "is_exact": True}


def test_list_says_how_to_see_the_rest() -> None:
    enqueue(3)

    output, _ = run("list", "--limit", 2)

    place = re.search(r"There are more, of 3: --limit N, or --after (\S+)\.$", output)
    assert place
    assert len(run("list", "--limit", 2, "--after", place[1])[0].splitlines()) == 2


def test_a_table_fits_its_terminal_and_moves_no_cursor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    a_try(
        "failed",
        of=execution(outcome="failed", finished_at=ago()),
        error_class="E",
        result="red \x1b[31m and\nlong " + "x" * 300,
    )

    shown = run("list", stream=Terminal())[0]

    assert max(map(len, shown.splitlines())) == 100
    assert len(shown.splitlines()) == 2
    assert "\x1b" not in shown
    assert "…" in shown


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["list", "--state", "broken"], "--state: 'broken' is no state"),
        (["list", "--asked", "soon"], "--asked: 'soon' is no time"),
        (["list", "--limit", "0"], "--limit must be from 1"),
        (["list", "--after", "x"], "--after: This page's place"),
        (["cancel", "x"], "'x' is neither an id, nor a uuid"),
        (["cancel"], "Which executions? Name them"),
        (["discard"], "Which executions? Name them"),
        (["tail", "--interval", "0"], "--interval must be from"),
        (["run-now"], "Which executions? Name them"),
        (["put-off", "--by", "1h"], "Which executions? Name them"),
        (["put-off", "--by", "soon", "--queue", "default"], "--by: 'soon' is no length of time"),
        (["put-off", "--by", "400000w", "--queue", "default"], "beyond the year 8999"),
        (["put-off", "--by", "999999999w", "--queue", "default"], "--by: '999999999w' is too long a time"),
    ],
)
def test_a_wrong_command_line_ends_with_2_and_a_sentence(arguments: list[str], said: str) -> None:
    output, code = run(*arguments)

    assert code == 2
    assert said in output


def test_cancel_of_a_finished_one_says_so_and_is_not_0() -> None:
    done, waiting = finished("success", ago()), enqueue()[0].task_execution

    output, code = run("cancel", done.pk, waiting.uuid)

    assert code == 1
    assert f"{done} ({done.uuid}): succeeded\n" in output
    assert f"{waiting} ({waiting.uuid}): cancelled\n" in output
    assert "1 execution was cancelled, or told to stop.\n1 left alone: it has ended already.\n" in output


def test_an_id_may_be_that_of_a_try() -> None:
    (task_try,) = enqueue()

    assert run("cancel", f"try:{task_try.pk}")[1] == 0
    assert TaskExecution.objects.get().outcome == "cancelled"


@pytest.mark.parametrize("command", ["cancel", "retry", "discard", "run-now", "put-off", "status", "run"])
def test_one_that_does_not_exist_stops_it_before_it_begins(command: str) -> None:
    (task_try,) = enqueue()
    both = [task_try.task_execution_id, 999_999] if command != "run" else [999_999]
    both += ["--by", "1h"] if command == "put-off" else []

    output, code = run(command, *both)

    assert (output.split(":")[0], code) == ("There is no execution 999999", 1)
    task_try.refresh_from_db()
    assert not task_try.is_completed


def test_all_that_a_filter_finds_is_shown_asked_about_and_done(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [finished("failed", ago()) for _ in range(3)] + [finished("success", ago())]
    chosen = ["--asked", "2h", "--task", "send_email"]

    output, code = run("retry", *chosen, "--dry-run")
    assert code == 0
    assert output.startswith("[dry-run] 3 executions would be given another try: state=failed,cancelled,lost task=")
    assert len(output.splitlines()) == 5
    output, code = run("retry", *chosen)
    assert code == 2
    assert "3 executions will be given another try" in output
    assert "Pass --yes" in output
    answers = iter(["n", "y"])
    monkeypatch.setattr("builtins.input", lambda question: next(answers))
    monkeypatch.setattr("sys.stdin", Terminal())
    assert run("retry", *chosen) == ("Nothing was changed.", 1)
    assert not TaskExecutionTry.objects.filter(try_number=2).exists()

    assert run("retry", *chosen) == ("3 executions were given another try.\n", 0)

    again = TaskExecutionTry.objects.filter(try_number=2).values_list("task_execution", flat=True)
    assert set(again) == {row.pk for row in rows[:3]}


def test_discard_asks_even_about_those_that_are_named_and_tells_as_json() -> None:
    row = finished("failed", ago())
    running = lease(enqueue()[0])[0]

    assert run("discard", row.pk)[1] == 2
    output, code = run("discard", row.pk, running.execution_id, "--yes", "--json")

    told = json.loads(output)
    assert code == 1
    assert (told["act"], told["done"], told["skipped"]) == ("discard", 1, {"it is running: cancel it first": 1})
    assert TaskExecution.objects.get().pk == running.execution_id


def test_what_waits_is_put_off_and_made_due_again() -> None:
    waiting = [task_try.task_execution_id for task_try in enqueue(2)]
    done = finished("success", ago())
    before = timezone.now()

    assert run("put-off", "--task", "add", "--by", "2h", "--yes") == ("2 executions were put off.\n", 0)

    after = timezone.now()
    for task_try in TaskExecutionTry.objects.filter(task_execution__in=waiting):
        assert before + timedelta(hours=2) <= task_try.run_after == task_try.dispatch_at <= after + timedelta(hours=2)
    output, code = run("put-off", *waiting, "--by", "1h")
    assert (output.splitlines()[-1], code) == ("2 left alone: it is due later than that.", 1)
    output, code = run("run-now", waiting[0], done.pk, "--json")
    told = json.loads(output)
    assert (code, told["act"], told["done"]) == (1, "run_now", 1)
    assert told["skipped"] == {"it is not put off": 1}
    assert run("run-now", "--state", "deferred", "--yes") == ("1 execution was made due.\n", 0)
    assert not TaskExecutionTry.objects.filter(task_execution__in=waiting, run_after__isnull=False).exists()


def test_verbosity_0_leaves_the_exit_code() -> None:
    row = finished("success", ago())

    assert run("cancel", row.pk, verbosity=0) == ("", 1)
    for command in ("list", "queues", "workers", "audit"):
        assert run(command, verbosity=0) == ("", 0)
    for command in ("pause-queue", "resume-queue"):
        assert run(command, "default", verbosity=0) == ("", 0)
    with pytest.raises(ValueError, match="broken"):
        fail.sync_run("broken")
    errors = io.StringIO()
    assert run("run", TaskExecution.objects.latest("pk").pk, verbosity=0, stderr=errors) == ("", 1)
    assert errors.getvalue() == ""


def test_status_says_what_it_waits_for_who_ran_it_and_how_long() -> None:
    deferred, waiting, running = enqueue(3)
    later = timezone.now() + timedelta(hours=2)
    TaskExecutionTry.objects.filter(pk=deferred.pk).update(run_after=later)
    lease(running, worker_id="pod-1")
    settled = enqueue()[0]
    settle([says(lease(settled, worker_id="pod-2")[0], Success(3))])

    output, code = run("status", *(one.task_execution_id for one in (deferred, waiting, running)), f"try:{settled.pk}")

    assert code == 0
    lines = output.splitlines()
    assert lines[0] == "deferred: tests.shop.tasks.add(1, 2)"
    assert lines[1] == (f"  id {deferred.task_execution_id}, uuid {deferred.task_execution.uuid}, queue default")
    assert re.fullmatch(r"  try 1: waits until \S+ \S+ UTC \(in (2 h|1 h 59 min)\)", lines[3])
    assert lines[7].startswith("  try 1: waits for a worker, for ")
    assert re.fullmatch(r"  try 1: runs, waited .*, for .* so far, on pod-1", lines[11])
    assert re.fullmatch(r"  try 1: success \S+ \S+ UTC, (waited .*, )?took .*, on pod-2: 3", lines[15])


def test_status_of_several_as_json_is_a_list() -> None:
    first, second = (task_try.task_execution_id for task_try in enqueue(2))

    output, code = run("status", first, second, 999_999, "--json")

    assert code == 1
    assert [report.get("task", {}).get("id") for report in json.loads(output)] == [first, second, None]


def test_queues_show_what_waits_runs_and_is_put_off() -> None:
    enqueue(3)
    lease(enqueue(1, replace(ADD, queue_name="heavy"))[0])
    enqueue(2, replace(ADD, queue_name="gone", run_after=timezone.now() + timedelta(hours=1)))

    output, _ = run("queues")
    found = {queue["queue"]: queue for queue in json.loads(run("queues", "--json")[0])}

    assert output.splitlines()[0].split()[:4] == ["queue", "kind", "waiting", "oldest"]
    assert (found["default"]["waiting"], found["default"]["kind"]) == (3, "pull")
    assert (found["heavy"]["running"], found["push"]["kind"]) == (1, "push")
    assert (found["gone"]["deferred"], found["gone"]["kind"]) == (2, "not in I3TASKS")


def test_queues_say_since_when_and_by_whom_they_are_paused() -> None:
    pause("heavy", by="ada", now=ago(minutes=5))

    output, _ = run("queues")
    found = {queue["queue"]: queue for queue in json.loads(run("queues", "--json")[0])}

    (heavy,) = [line for line in output.splitlines() if line.startswith("heavy ")]
    assert heavy.endswith("5 min ago by ada")
    assert (found["heavy"]["paused_by"], found["default"]["paused_at"]) == ("ada", None)


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What happens before each look of `tail`; at the end, Ctrl-C."""
    acts: list[Any] = []

    def sleep(seconds: float) -> None:
        if not acts:
            raise KeyboardInterrupt
        acts.pop(0)()

    monkeypatch.setattr(i3tasks_tail.time, "sleep", sleep)
    return acts


def test_tail_tells_what_is_asked_for_begins_and_ends(looks: list[Any]) -> None:
    before = enqueue()[0]
    tries: list[TaskExecutionTry] = []
    looks += [
        lambda: tries.extend(enqueue(2)),
        lambda: lease(tries[0], worker_id="pod-1"),
        lambda: settle([says(lease(tries[1])[0], failure(delay=60)), says(lease(before)[0], Success(1))]),
    ]

    output, code = run("tail")

    assert code == 0
    events = [(line.split()[1], re.search(r"execution (\d+), try (\d)", line)) for line in output.splitlines()]
    told = [(kind, int(found[1]), int(found[2])) for kind, found in events if found]
    first, second, third = (task_try.task_execution_id for task_try in (*tries, before))
    assert set(told[:2]) == {("asked", first, 1), ("asked", second, 1)}
    assert told[2] == ("begun", first, 1)
    assert set(told[3:]) == {("failed", second, 1), ("asked", second, 2), ("succeeded", third, 1)}
    assert "CardDeclined: no money" in output
    assert ", on pod-1)" in output


def test_tail_goes_by_the_filter_and_prints_a_json_object_a_line(looks: list[Any]) -> None:
    looks += [lambda: enqueue(1, replace(ADD, queue_name="heavy")) + enqueue()]

    [line] = run("tail", "--queue", "heavy", "--json")[0].splitlines()

    told = json.loads(line)
    assert (told["event"], told["queue"], told["task"]) == ("asked", "heavy", "tests.shop.tasks.add")


def test_a_row_that_is_committed_later_than_the_next_one_is_told_of() -> None:
    newest = enqueue()[0].pk
    now = timezone.now()
    following = Following(Search(), now)

    def told_after(pk: int) -> list[int]:
        TaskExecutionTry.objects.create(pk=pk, task_execution=execution(), dispatch_at=now)
        return [one.task_try.pk for one in following.look(now)]

    assert told_after(newest + 5) == [newest + 5]
    assert told_after(newest + 2) == [newest + 2]
    assert following.look(now) == []


def test_run_runs_it_here_with_its_record() -> None:
    add.using(run_after=timedelta(hours=1)).delay(1, 2)
    row = TaskExecution.objects.get()

    output, code = run("run", row.pk)

    assert code == 0
    assert output.startswith("succeeded: tests.shop.tasks.add(1, 2)\n")
    task_try = TaskExecutionTry.objects.select_related("result").get()
    assert (task_try.worker_id, task_try.is_success, task_try.result.result) == ("inline", True, 3)
    assert run("run", row.pk) == ("There is nothing to run: it is succeeded.", 1)


def test_run_tells_as_json_what_became_of_it() -> None:
    add.delay(1, 2)
    output, code = run("run", TaskExecution.objects.get().pk, "--json")
    told = json.loads(output)
    assert (code, told["status"], told["task"]["id"]) == (0, "success", TaskExecution.objects.get().pk)


def test_run_gives_a_failed_one_another_try_shows_the_error_and_debugs(monkeypatch: pytest.MonkeyPatch) -> None:
    debugged: list[Any] = []
    monkeypatch.setattr("pdb.post_mortem", debugged.append)
    with pytest.raises(ValueError, match="broken"):
        fail.sync_run("broken")
    row = TaskExecution.objects.get()
    errors = io.StringIO()

    output, code = run("run", row.uuid, "--pdb", stderr=errors)

    assert code == 1
    assert "  try 2: failed " in output
    assert "raise ValueError(message)" in errors.getvalue()
    assert debugged[0].tb_frame
    row.refresh_from_db()
    assert row.outcome == "failed"


def test_run_leaves_what_runs_elsewhere_alone() -> None:
    (claimed,) = lease(enqueue()[0], worker_id="pod-1")

    assert run("run", claimed.execution_id) == ("It is running, on pod-1. Wait for its end, or cancel it first.", 1)


def test_the_stack_of_what_runs_is_asked_for_waited_for_and_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    (task_try,) = enqueue()
    row = task_try.task_execution_id
    wanted = f"It is not running, so there is no stack to take: see `i3tasks status {row}`."
    assert run("stack", f"try:{task_try.pk}") == (wanted, 1)
    lease(task_try, worker_id="w1")
    output, code = run("stack", task_try.task_execution_id, "--timeout", "0")
    assert (code, "next heartbeat" in output) == (1, True)

    def answers(seconds: float) -> None:
        note_stacks([TakenStack(task_try.pk, '  File "shop.py", line 3, in charge\n')])

    monkeypatch.setattr("i3tasks.management.commands.i3tasks_stack.time.sleep", answers)
    output, code = run("stack", task_try.task_execution_id)
    assert (code, "on w1" in output, output.endswith('  File "shop.py", line 3, in charge\n')) == (0, True, True)
    facts = json.loads(run("stack", task_try.task_execution_id, "--json")[0])
    assert (facts["try"], facts["worker"]) == (task_try.pk, "w1")
    assert facts["stack"].endswith("in charge\n")

    TaskExecutionTry.objects.filter(pk=task_try.pk).update(lease_until=ago(seconds=1))
    output, code = run("stack", task_try.task_execution_id, "--timeout", "0")
    assert (code, "the worker is gone" in output) == (1, True)
    assert run("stack", "nonsense")[1] == 2
