"""The README's main job, on each emulator and each database, against a count of our own."""

import ast
import os
import re
import signal
import sqlite3
import sysconfig
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest

from tests.acceptance.conftest import ROOT, Example
from tests.support.doc_blocks import Page
from tests.support.google_emulator import GoogleEmulator

FILES = 25


def own_count(limit: int) -> Counter[str]:
    """What the report must say, counted without the example's code."""
    top = Path(sysconfig.get_paths()["stdlib"]).resolve()
    others = {"site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__"}
    names = sorted(path.relative_to(top).as_posix() for path in top.rglob("*.py"))
    names = [name for name in names if not others & set(name.split("/"))][:limit]
    counts = Counter(files=len(names))
    for name in names:
        content = (top / name).read_bytes()
        counts["lines"] += len(content.splitlines())
        for node in ast.walk(ast.parse(content)):
            counts["functions"] += isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            counts["classes"] += isinstance(node, ast.ClassDef)
    return counts


def check(example: Example, exit_code: int) -> None:
    assert exit_code == 0, example.text()
    counted = {name: example.number(name) for name in ("files", "lines", "functions", "classes")}
    assert counted == own_count(FILES)
    assert example.number("unparsable") == 0
    assert example.number("collect") == example.number("measure") == FILES
    assert example.survivors() == []


def shape(line: str) -> str:
    """The line without its numbers, units of time, and width."""
    line = re.sub(r"[\d,]*\.?\d+( ?(ms|s)\b)?", "0", line)
    return " ".join(line.split())


def shows_what_the_readme_shows(text: str) -> None:
    [shown] = Page(ROOT / "README.md").of("")
    printed = {shape(line) for line in text.splitlines()}
    assert {shape(line) for line in shown.text.splitlines()} - {"...", ""} <= printed


def test_on_the_embedded_emulator_and_sqlite(example: Example) -> None:
    exit_code = example.run("--limit", str(FILES))

    check(example, exit_code)
    shows_what_the_readme_shows(example.text())
    assert f"100 %  {FILES} fetched, {FILES} measured of {FILES} files" in example.text()
    with closing(sqlite3.connect(example.data / "census.sqlite3")) as database:
        rows = database.execute("SELECT task_name, outcome, COUNT(*) FROM i3tasks_taskexecution GROUP BY 1, 2")
        assert sorted(rows) == [("collect", "success", FILES), ("measure", "success", FILES)]


def test_on_postgresql(example: Example, postgres_database: str) -> None:
    exit_code = example.run("--limit", str(FILES), CENSUS_DATABASE=postgres_database)

    check(example, exit_code)
    assert not list(example.data.glob("*.sqlite3"))


@pytest.mark.google
def test_on_googles_emulator(example: Example, google_emulator: GoogleEmulator) -> None:
    exit_code = example.run("--limit", str(FILES), PUBSUB_EMULATOR_HOST=google_emulator.host_port)

    check(example, exit_code)
    assert not (example.data / "emulator.log").exists()


def test_a_terminal_gets_a_progress_bar(example: Example) -> None:
    ours, theirs = os.openpty()
    example.begin("--limit", "3", terminal=theirs)
    os.close(theirs)

    shown = "".join(iter(lambda: read_terminal(ours), ""))

    assert example.wait() == 0, shown
    assert "[####################################] 100 %  3 fetched, 3 measured of 3 files" in shown


def read_terminal(descriptor: int) -> str:
    """What was written meanwhile; nothing once the terminal's other end is closed."""
    try:
        return os.read(descriptor, 65536).decode()
    except OSError:
        return ""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_a_run_that_is_stopped_leaves_no_process_behind(example: Example, number: signal.Signals) -> None:
    example.begin()
    example.until_says("files enqueued")
    assert len(example.survivors()) >= 4  # run.py, emulator, web process, worker

    example.send(number)

    assert example.wait() == 128 + number
    assert example.survivors() == []


def test_a_run_that_fails_says_why_and_leaves_no_process_behind(example: Example) -> None:
    exit_code = example.run(CENSUS_DATABASE="postgresql://nobody@127.0.0.1:1/nothing")

    assert exit_code == 1
    assert "port 1 failed" in example.text()
    assert example.survivors() == []


def test_a_worker_that_dies_ends_the_run_with_its_log(example: Example) -> None:
    example.begin()
    example.until_says("files enqueued")

    [worker] = [process for process in example.processes() if "run-worker" in process.cmdline()]
    worker.kill()

    assert example.wait() == 1
    assert "The worker ended with exit code -9." in example.text()
    assert "worker_started" in example.text()
    assert example.survivors() == []
