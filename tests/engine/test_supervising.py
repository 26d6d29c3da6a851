"""The supervisor of several worker processes: signals, replacements, exit codes, signs of life."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from i3tasks.management import supervising
from i3tasks.management.supervising import FRESH_SECONDS, MOST_DEATHS, Member, Supervisor, processes_of
from tests.support.rigs import until

STAY = """
import os, pathlib, signal, sys, time
def end(*_):
    pathlib.Path(sys.argv[1], f"ended-{os.getpid()}").touch()
    sys.exit(int(sys.argv[2]))
signal.signal(signal.SIGTERM, end)
pathlib.Path(sys.argv[1], f"began-{os.getpid()}").touch()
time.sleep(60)
"""


@pytest.fixture(autouse=True)
def without_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervising, "FIRST_PAUSE_SECONDS", 0.0)


def python(code: str, *arguments: object) -> list[str]:
    return [sys.executable, "-S", "-c", code, *map(str, arguments)]


def pids(folder: Path, what: str = "began") -> set[int]:
    return {int(path.name.partition("-")[2]) for path in folder.glob(f"{what}-*")}


def run_while(supervisor: Supervisor, act: Callable[[], None]) -> int:
    """Run the supervisor here, where its signals arrive, and `act` beside it; then stop it."""

    def then_stop() -> None:
        try:
            act()
        finally:
            os.kill(os.getpid(), signal.SIGTERM)

    beside = threading.Thread(target=then_stop)
    beside.start()
    try:
        return supervisor.run()
    finally:
        beside.join()


def test_one_signal_reaches_every_process_and_their_good_end_is_its_own(tmp_path: Path) -> None:
    supervisor = Supervisor([Member(number, python(STAY, tmp_path, 0)) for number in (1, 2)])
    assert run_while(supervisor, lambda: until(lambda: len(pids(tmp_path)) == 2)) == 0
    assert pids(tmp_path, "ended") == pids(tmp_path)


def test_a_process_that_ends_badly_shows_in_the_exit_code(tmp_path: Path) -> None:
    supervisor = Supervisor([Member(1, python(STAY, tmp_path, 0)), Member(2, python(STAY, tmp_path, 75))])
    assert run_while(supervisor, lambda: until(lambda: len(pids(tmp_path)) == 2)) == 75


def test_a_process_that_dies_is_replaced_and_its_neighbour_is_left_alone(tmp_path: Path) -> None:
    supervisor = Supervisor([Member(number, python(STAY, tmp_path, 0)) for number in (1, 2)])
    killed: list[int] = []

    def kill_one() -> None:
        until(lambda: len(pids(tmp_path)) == 2)
        killed.append(min(pids(tmp_path)))
        os.kill(killed[0], signal.SIGKILL)
        until(lambda: len(pids(tmp_path)) == 3)

    assert run_while(supervisor, kill_one) == 0
    assert pids(tmp_path, "ended") == pids(tmp_path) - set(killed)


def test_processes_that_die_again_and_again_end_it_with_their_exit_code(caplog: pytest.LogCaptureFixture) -> None:
    members = [Member(number, python("raise SystemExit(3)")) for number in (1, 2)]
    assert Supervisor(members).run() == 3
    assert sum("process_died" in record.getMessage() for record in caplog.records) >= 2 * MOST_DEATHS


def test_signals_that_interrupt_each_other_do_not_stop_it() -> None:
    storm = "import os, signal\nfor _ in range(20_000): os.kill(os.getppid(), signal.SIGCHLD)\nraise SystemExit(3)"
    assert Supervisor([Member(number, python(storm)) for number in (1, 2)]).run() == 3


def test_the_pauses_grow_and_a_steady_process_begins_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervising, "FIRST_PAUSE_SECONDS", 0.5)
    now = 1000.0
    monkeypatch.setattr(supervising.time, "monotonic", lambda: now)
    supervisor = Supervisor([member := Member(1, []), Member(2, [])])
    pauses = []
    for lived in (1, 1, 1, 100):
        member.started_at = now - lived
        supervisor._note_end(member, -signal.SIGKILL)
        assert member.start_at is not None
        pauses.append(member.start_at - now)
    assert pauses == [0.5, 1.0, 2.0, 0.5]


def test_a_process_that_has_run_its_number_of_tasks_is_replaced_at_once() -> None:
    supervisor = Supervisor([member := Member(1, [], deaths=3)])
    supervisor._note_end(member, 0)
    assert member.deaths == 0
    assert member.start_at is not None
    assert member.start_at <= time.monotonic()


def test_the_liveness_file_is_touched_only_while_every_process_is_well(tmp_path: Path) -> None:
    shown = tmp_path / "alive"
    members = [Member(number, [], tmp_path / str(number), start_at=None) for number in (1, 2)]
    supervisor = Supervisor(members, liveness_file=shown)
    (tmp_path / "1").touch()
    supervisor._show_life()
    assert not shown.exists(), "the second has not begun"
    (tmp_path / "2").touch()
    supervisor._show_life()
    assert shown.exists()
    shown.unlink()
    old = time.time() - FRESH_SECONDS - 1
    os.utime(tmp_path / "1", (old, old))
    supervisor._show_life()
    assert not shown.exists(), "the first hangs"


def test_each_process_has_a_name_a_port_and_a_liveness_file_of_its_own(tmp_path: Path) -> None:
    options: dict[str, Any] = {
        "processes": 2,
        "queues": ["mail", "heavy"],
        "concurrency": 50,
        "threads": 4,
        "streams": 1,
        "verbosity": 1,
        "max_tasks": 9,
        "worker_id": "pod",
        "metrics_port": ("127.0.0.1", 9000),
        "liveness_file": Path("/run/alive"),
    }
    first, second = processes_of(options, tmp_path)
    assert {"--queue=mail", "--queue=heavy", "--concurrency=50", "--max-tasks=9", "--no-emulator"} <= {*first.command}
    assert {"--worker-id=pod-1", "--metrics-port=127.0.0.1:9000", f"--liveness-file={tmp_path}/1"} <= {*first.command}
    assert {"--worker-id=pod-2", "--metrics-port=127.0.0.1:9001", f"--liveness-file={tmp_path}/2"} <= {*second.command}
