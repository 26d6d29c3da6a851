"""`i3tasks run-worker` as a process: signals, draining, sharing, brokers that are away, and kill -9."""

from __future__ import annotations

import os
import signal
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from google.auth import jwt

from i3tasks.emulator import EmulatorProcess
from i3tasks.models import TaskExecution, TaskExecutionTry, Worker
from tests.shop.gated import Gate, ahold, block, cling, exit_in, fork, hold
from tests.shop.signing import imported, sign
from tests.shop.tasks import add, fail
from tests.support.children import Child, Children, free_port, listens
from tests.support.oidc import claims, key
from tests.support.rigs import until

pytestmark = pytest.mark.django_db(transaction=True)

BOTH = pytest.mark.parametrize("task", [hold, ahold], ids=["sync", "coroutine"])


def finished(count: int = 1) -> bool:
    return TaskExecution.objects.filter(outcome__isnull=False).count() == count


def held(task: Any, folder: Path, name: str = "a") -> Gate:
    """Enqueue a task that ends when its gate is opened."""
    gate = Gate(folder, name)
    task.delay(*gate.arguments)
    return gate


@BOTH
def test_sigterm_lets_what_runs_end_and_exits_with_0(children: Children, tmp_path: Path, task: Any) -> None:
    gate = held(task, tmp_path)
    worker = children.worker()
    until(lambda: gate.pids, what=lambda: worker.output)
    worker.signal(signal.SIGTERM)
    worker.says("worker_draining")
    late = add.delay(1, 2)
    assert worker.process.poll() is None
    gate.open()
    assert worker.ends() == 0
    ended = TaskExecutionTry.objects.get(task_execution__task_name=task.spec.func_name)
    assert (ended.is_success, ended.try_number) == (True, 1)
    assert TaskExecutionTry.objects.get(pk=late.task_execution_try.pk).started_at is None, "nothing new is begun"
    assert "Traceback" not in worker.output


def until_it_ends(worker: Child, number: int) -> None:
    """Signal again and again: signals within a second of the first are one with it."""
    until(lambda: worker.process.poll() is not None or worker.signal(number))


@pytest.mark.parametrize(
    "numbers", [(signal.SIGTERM, signal.SIGTERM), (signal.SIGTERM, signal.SIGHUP), (signal.SIGHUP,)]
)
def test_signals_at_once_are_one_and_drain(children: Children, tmp_path: Path, numbers: tuple[int, ...]) -> None:
    gate = held(ahold, tmp_path)
    worker = children.worker()
    until(lambda: gate.pids, what=lambda: worker.output)
    for number in numbers:
        worker.signal(number)
    worker.says("worker_draining")
    gate.open()
    assert worker.ends() == 0
    assert TaskExecutionTry.objects.get().is_success


@pytest.mark.parametrize("way", ["gather", "group", "callback", "reader"])
def test_an_exit_in_what_a_body_began_is_its_own_failure(children: Children, tmp_path: Path, way: str) -> None:
    gate = held(ahold, tmp_path)
    worker = children.worker()
    until(lambda: gate.pids, what=lambda: worker.output)
    exiting = exit_in.using(max_retries=1).delay(way)
    until(lambda: TaskExecution.objects.get(pk=exiting.task_execution_id).outcome, what=lambda: worker.output)
    gate.open()
    until(lambda: finished(2), what=lambda: worker.output)
    assert worker.process.poll() is None
    of_exiting = TaskExecutionTry.objects.filter(task_execution=exiting.task_execution_id).order_by("try_number")
    assert [task_try.error_class for task_try in of_exiting] == ["SystemExit"] * 2
    assert TaskExecutionTry.objects.filter(task_execution__task_name="ahold").get().is_success
    assert "exit_contained" in worker.output


@pytest.mark.parametrize("way", ["pool", "terminate"])
def test_what_a_body_forks_can_be_ended(children: Children, way: str) -> None:
    worker = children.worker()
    forking = fork.using(max_retries=0).delay(way)
    until(finished, what=lambda: worker.output)
    assert TaskExecution.objects.get(pk=forking.task_execution_id).outcome == "success", worker.output


def test_a_second_signal_ends_it_at_once(children: Children, tmp_path: Path) -> None:
    gate = held(hold, tmp_path)
    worker = children.worker()
    until(lambda: gate.pids)
    worker.signal(signal.SIGTERM)
    worker.says("worker_draining")
    until_it_ends(worker, signal.SIGTERM)
    assert worker.ends(5) == 128 + signal.SIGTERM
    assert TaskExecutionTry.objects.get().lease_until is not None, "its lease runs out by itself"


def test_a_second_signal_ends_it_though_a_body_blocks_the_loop(children: Children, tmp_path: Path) -> None:
    gate = held(block, tmp_path)
    worker = children.worker()
    until(lambda: gate.pids)
    worker.signal(signal.SIGTERM)
    until_it_ends(worker, signal.SIGINT)
    assert worker.ends(5) in {128 + signal.SIGTERM, 128 + signal.SIGINT}


def test_a_body_that_will_not_end_is_handed_back_and_left_behind(children: Children, tmp_path: Path) -> None:
    gate = held(cling, tmp_path)
    worker = children.worker(drain_seconds=0)
    until(lambda: gate.pids)
    assert worker.stop() == 0
    again = TaskExecutionTry.objects.get()
    assert (again.try_number, again.started_at, again.claim_token) == (1, None, None), worker.output


@BOTH
def test_what_does_not_end_in_time_is_handed_back_and_run_by_the_next(
    children: Children, tmp_path: Path, task: Any
) -> None:
    gate = held(task, tmp_path)
    worker = children.worker(drain_seconds=0.2)
    until(lambda: gate.pids)
    assert worker.stop() == 0
    again = TaskExecutionTry.objects.get()
    assert (again.try_number, again.started_at, again.claim_token) == (1, None, None)
    assert again.dispatch_at is not None
    gate.open()
    next_worker = children.worker()
    until(finished, what=lambda: next_worker.output)
    assert len(gate.pids) == 2
    assert TaskExecutionTry.objects.get().is_success, "the same try: no retry was used up"


def test_with_no_time_to_drain_everything_is_handed_back(children: Children, tmp_path: Path) -> None:
    gates = [held(ahold, tmp_path, f"t{number}") for number in range(20)]
    worker = children.worker("--concurrency", "20", drain_seconds=0)
    until(lambda: any(gate.pids for gate in gates))
    assert worker.stop() == 0
    assert not TaskExecutionTry.objects.filter(lease_until__isnull=False).exists(), worker.output
    assert TaskExecutionTry.objects.count() == 20


def test_retries_wait_for_their_backoff_in_the_rows_and_end_with_the_record(children: Children) -> None:
    worker = children.worker()
    fail.using(max_retries=2).delay("always")
    until(finished, what=lambda: worker.output)
    tries = list(TaskExecutionTry.objects.select_related("result").order_by("try_number"))
    assert [item.try_number for item in tries] == [1, 2, 3]
    for earlier, later, seconds in zip(tries, tries[1:], (0.2, 0.4), strict=False):
        assert later.run_after - earlier.finished_at == timedelta(seconds=seconds)
        assert later.started_at >= later.run_after
    assert [item.result.result for item in tries] == ["always"] * 3
    assert "MaxRetriesExceededError" in tries[-1].error_traceback
    assert "MaxRetriesExceededError" not in tries[-2].error_traceback
    assert TaskExecution.objects.get().outcome == "failed"


def test_two_workers_share_the_work(children: Children, tmp_path: Path) -> None:
    one, two = children.worker("--concurrency", "1"), children.worker("--concurrency", "1")
    gates = [held(ahold, tmp_path, name) for name in "ab"]
    until(lambda: all(gate.pids for gate in gates), what=lambda: one.output + two.output)
    assert {gates[0].pids[0], gates[1].pids[0]} == {one.process.pid, two.process.pid}
    for gate in gates:
        gate.open()
    until(lambda: finished(2))


@BOTH
def test_what_a_killed_worker_ran_is_run_again_by_another(children: Children, tmp_path: Path, task: Any) -> None:
    gates = [held(task, tmp_path, f"t{number}") for number in range(4)]
    killed = children.worker()
    until(lambda: all(gate.pids for gate in gates), what=lambda: killed.output)
    killed.kill()
    for gate in gates:
        gate.open()
    worker = children.worker()
    until(lambda: finished(4), what=lambda: worker.output)
    assert all(gate.pids == [killed.process.pid, worker.process.pid] for gate in gates)
    tries = TaskExecutionTry.objects.all()
    lost = tries.filter(try_number=1)
    assert {item.error_class for item in lost} == {"i3tasks.exceptions.WorkerLost"}
    assert tries.filter(try_number=2, is_success=True).count() == 4
    assert tries.filter(is_success=True).count() == 4, "once each"


def test_a_task_that_kills_its_workers_stops_after_its_retries(children: Children, tmp_path: Path) -> None:
    gate = Gate(tmp_path, "a")
    ahold.using(max_retries=0).delay(*gate.arguments)
    worker = children.worker()
    until(lambda: gate.pids)
    worker.kill()
    children.worker()
    until(finished)
    assert TaskExecution.objects.get().outcome == "failed"
    assert len(gate.pids) == 1


# --------------------------------------------------------------------------------------------------- its broker


@pytest.fixture
def own_port(children: Children, settings: Any) -> int:
    """Settings that ask for an emulator where nothing listens."""
    port = free_port()
    settings.PUBSUB_CONFIG = children.changes["pubsub"] = {**settings.PUBSUB_CONFIG, "HOST": f"127.0.0.1:{port}"}
    return port


def ended_cleanly(worker: Child, port: int) -> None:
    assert worker.ends() == 0
    assert "Traceback" not in worker.output
    until(lambda: not listens(port))


def test_it_starts_the_emulator_where_nothing_listens_and_ends_it(
    children: Children, own_port: int, tmp_path: Path
) -> None:
    worker = children.worker(folder=tmp_path)
    assert f"Started the embedded emulator on 127.0.0.1:{own_port}" in worker.output
    add.delay(1, 2)
    until(finished, what=lambda: worker.output)
    worker.signal(signal.SIGTERM)
    ended_cleanly(worker, own_port)


def test_ctrl_c_in_a_terminal_drains_it_before_its_emulator_ends(
    children: Children, own_port: int, tmp_path: Path
) -> None:
    worker = children.worker(folder=tmp_path)
    gate = held(ahold, tmp_path)
    until(lambda: gate.pids, what=lambda: worker.output)
    worker.signal_group(signal.SIGINT)
    worker.says("worker_draining")
    assert listens(own_port), "what was worked on could not be acked"
    gate.open()
    ended_cleanly(worker, own_port)
    assert TaskExecutionTry.objects.get().is_success


def test_a_broker_that_went_away_does_not_hold_up_the_drain(children: Children, own_port: int, tmp_path: Path) -> None:
    with EmulatorProcess(host_port=f"127.0.0.1:{own_port}") as emulator:
        worker = children.worker()
        gate = held(ahold, tmp_path)
        until(lambda: gate.pids, what=lambda: worker.output)
        emulator.kill()
        worker.signal(signal.SIGTERM)
        worker.says("worker_draining")
        gate.open()
        assert worker.ends(20) == 0
    assert TaskExecutionTry.objects.get().is_success
    assert "Traceback" not in worker.output


def test_killing_it_leaves_no_emulator_behind(children: Children, own_port: int, tmp_path: Path) -> None:
    worker = children.worker(folder=tmp_path)
    assert listens(own_port)
    worker.kill()
    until(lambda: not listens(own_port))


def test_the_next_worker_finds_the_messages_of_the_emulator_that_ended(
    children: Children, own_port: int, tmp_path: Path
) -> None:
    gate = held(ahold, tmp_path)
    first = children.worker(folder=tmp_path, drain_seconds=0.2)
    until(lambda: gate.pids, what=lambda: first.output)
    first.kill()
    gate.open()
    second = children.worker(folder=tmp_path)
    until(finished, what=lambda: second.output)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_the_second_worker_takes_the_emulator_over_from_the_first(
    children: Children, own_port: int, tmp_path: Path, number: signal.Signals
) -> None:
    """In development two workers are two terminals, and either may be closed first."""
    started = f"Started the embedded emulator on 127.0.0.1:{own_port}"
    first = children.worker(folder=tmp_path)
    second = children.worker(folder=tmp_path)
    assert started in first.output
    assert started not in second.output

    first.signal(number)
    first.ends()
    second.says(started)
    add.delay(1, 2)
    until(finished, what=lambda: second.output)

    second.signal(signal.SIGTERM)
    ended_cleanly(second, own_port)


def test_on_an_emulator_it_loads_what_signs_when_a_body_signs(children: Children) -> None:
    worker = children.worker()
    assert imported.delay("grpc").result(timeout=30) is True, worker.output
    assert imported.delay("cryptography").result(timeout=30) is False, worker.output
    token = sign.delay(key("k1").private.decode(), claims()).result(timeout=30)
    assert jwt.decode(token, certs=key("k1").certificate)["sub"] == claims()["sub"]
    assert imported.delay("cryptography").result(timeout=30) is True, worker.output


def test_processes_share_the_work_are_replaced_and_drain_when_their_supervisor_is_gone(children: Children) -> None:
    supervisor = children.worker("--processes", "2", "--worker-id", "pod")
    until(lambda: Worker.objects.filter(pk__in=("pod-1", "pod-2")).count() == 2, what=lambda: supervisor.output)
    add.delay(1, 2)
    until(finished)
    os.kill(Worker.objects.get(pk="pod-1").pid, signal.SIGKILL)
    supervisor.says("process_died")
    until(lambda: supervisor.output.count("worker_started") == 3, what=lambda: supervisor.output)
    supervisor.process.kill()
    until(lambda: supervisor.output.count("worker_stopped") == 2, what=lambda: supervisor.output)


def test_a_changed_file_starts_it_anew(children: Children, tmp_path: Path) -> None:
    module = tmp_path / "tasks.py"
    module.write_text("one = 1\n")
    worker = children.worker("--reload", "--no-emulator", folder=tmp_path)

    module.write_text("one = 11\n")

    worker.says("tasks.py changed: starting anew.")
    until(lambda: worker.output.count("worker_started") == 2, what=lambda: worker.output)
    assert worker.stop() == 0
    assert worker.output.count("worker_stopped") == 2
