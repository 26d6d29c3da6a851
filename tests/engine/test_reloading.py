"""Files are watched, and processes begin anew when one changes; what they run meanwhile drains."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from i3tasks.management import file_watching, supervising
from i3tasks.management.reloading import ReloadingSupervisor
from i3tasks.management.supervising import Member
from tests.engine.test_supervising import STAY, pids, python, run_while
from tests.support.rigs import until


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_watching, "LOOK_EVERY_SECONDS", 0.02)
    monkeypatch.setattr(supervising, "FIRST_PAUSE_SECONDS", 0.0)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    (folder / "shop").mkdir(parents=True)
    (folder / "shop" / "tasks.py").write_text("one = 1\n")
    return folder


def test_what_is_changed_made_and_deleted_is_told_and_the_rest_is_not(project: Path) -> None:
    (project / "venv").mkdir()
    (project / "venv" / "pyvenv.cfg").touch()
    (project / ".git").mkdir()
    (project / "gone.py").touch()
    told: list[str] = []
    with file_watching.watching([project], told.extend):
        for quiet in ("venv/a.py", ".git/b.py", "notes.txt", "shop/tests.py"):
            (project / quiet).write_text("x")
        (project / "shop" / "tasks.py").write_text("one = 11\n")
        (project / "gone.py").unlink()
        (project / "new.py").touch()
        until(lambda: len(told) >= 3)
    assert sorted(told) == [str(project / name) for name in ("gone.py", "new.py", "shop/tasks.py")]


def test_folders_that_cannot_be_read_are_passed_by(tmp_path: Path) -> None:
    with file_watching.watching([tmp_path / "nowhere"], print):
        pass


# Like a worker with a long task: it drains until the file is there.
DRAIN = """
import os, pathlib, signal, sys, time
folder = pathlib.Path(sys.argv[1])
def drain(*_):
    (folder / f"draining-{os.getpid()}").touch()
    while not (folder / "may-end").exists():
        time.sleep(0.01)
    (folder / f"ended-{os.getpid()}").touch()
    os._exit(0)
signal.signal(signal.SIGTERM, drain)
(folder / f"began-{os.getpid()}").touch()
time.sleep(60)
"""


@pytest.mark.parametrize("listens", [False, True])
def test_a_process_begins_anew_while_the_one_before_drains(tmp_path: Path, project: Path, *, listens: bool) -> None:
    said: list[str] = []
    member = Member(1, python(DRAIN, tmp_path), name="worker", listens=listens)
    supervisor = ReloadingSupervisor([member], said.append, folders=[project])

    def edit() -> None:
        until(lambda: len(pids(tmp_path)) == 1)
        (project / "shop" / "tasks.py").write_text("one = 11\n")
        until(lambda: len(pids(tmp_path, "draining")) == 1)
        if listens:
            assert len(pids(tmp_path)) == 1, "its port is still taken"
            (tmp_path / "may-end").touch()
        until(lambda: len(pids(tmp_path)) == 2)
        assert len(pids(tmp_path, "ended")) == int(listens)
        (tmp_path / "may-end").touch()

    assert run_while(supervisor, edit) == 0
    assert pids(tmp_path, "ended") == pids(tmp_path), "both drained"
    assert [text.partition(" changed")[0] for text in said] == [os.path.relpath(project / "shop" / "tasks.py")]


# Drains until its successor drains, too, and a moment longer, in which another signal would come.
NOTE_SIGNALS = """
import os, pathlib, signal, sys, time
folder = pathlib.Path(sys.argv[1])
def note(*_):
    with (folder / f"told-{os.getpid()}").open("a") as file:
        file.write("x")
signal.signal(signal.SIGTERM, note)
(folder / f"began-{os.getpid()}").touch()
while len([*folder.glob("told-*")]) < 2:
    time.sleep(0.01)
time.sleep(0.3)
"""


def test_what_drains_after_a_change_is_not_told_twice(tmp_path: Path, project: Path) -> None:
    supervisor = ReloadingSupervisor([Member(1, python(NOTE_SIGNALS, tmp_path))], print, folders=[project])

    def edit() -> None:
        until(lambda: len(pids(tmp_path)) == 1)
        (project / "shop" / "tasks.py").write_text("one = 11\n")
        until(lambda: len(pids(tmp_path)) == 2)

    assert run_while(supervisor, edit) == 0
    assert [file.read_text() for file in tmp_path.glob("told-*")] == ["x", "x"]


def test_one_that_cannot_start_waits_for_the_next_change(tmp_path: Path, project: Path) -> None:
    said: list[str] = []
    command = python(f"import sys; sys.path.insert(0, {str(project)!r}); import shop.tasks\n" + STAY, tmp_path, 0)
    supervisor = ReloadingSupervisor([Member(1, command, name="worker")], said.append, folders=[project])
    (project / "shop" / "tasks.py").write_text("one = \n")

    def mend() -> None:
        until(lambda: bool(said))
        (project / "shop" / "tasks.py").write_text("one = 1\n")
        until(lambda: len(pids(tmp_path)) == 1)

    assert run_while(supervisor, mend) == 0
    assert said[0].startswith("worker ended with exit code 1")
    assert len(said) == 2, said


def test_output_is_read_line_by_line_to_its_end(tmp_path: Path, project: Path) -> None:
    shown: list[bytes] = []
    member = Member(1, python("print('first'); print('last', end='')\n" + STAY, tmp_path, 0), show=shown.extend)
    supervisor = ReloadingSupervisor([member], print, folders=[project])
    assert run_while(supervisor, lambda: until(lambda: len(pids(tmp_path)) == 1)) == 0
    assert shown == [b"first\n", b"last"]


SUPERVISE = """
import sys
from i3tasks.management.supervising import Member, Supervisor
def show(lines):
    for line in lines:
        print(line.decode(), end="", flush=True)
Supervisor([Member(1, sys.argv[1:], show=show)]).run()
"""


def test_a_program_that_knows_no_supervisor_ends_when_that_is_killed() -> None:
    serving = ["-m", "i3tasks.management.developing.tethered", "http.server", "--bind", "127.0.0.1", "0"]
    with subprocess.Popen(
        [sys.executable, "-c", SUPERVISE, sys.executable, "-u", *serving], stdout=subprocess.PIPE, text=True
    ) as supervisor:
        assert supervisor.stdout is not None
        assert supervisor.stdout.readline().startswith("Serving HTTP on")
        [served] = psutil.Process(supervisor.pid).children()
        supervisor.kill()
        _, alive = psutil.wait_procs([served], timeout=30)
    assert not alive
