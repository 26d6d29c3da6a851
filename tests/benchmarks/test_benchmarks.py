"""The benchmarks run, and count right. What they measure is not asserted: times are no matter of a test."""

from __future__ import annotations

import json
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest
from django.db import connection

from i3tasks.models import TaskExecution
from tests.benchmarks import charts, checking
from tests.benchmarks.__main__ import BOUNDS, OURS, PEERS
from tests.benchmarks.harness import report
from tests.benchmarks.harness.contestant import contestant_class
from tests.benchmarks.harness.measure import WORKLOADS
from tests.benchmarks.harness.rounds import Entry, entries, kinds_of, plan, run
from tests.benchmarks.harness.services import SERVICES
from tests.benchmarks.harness.workloads import AT_ONCE, RUN
from tests.benchmarks.scale import queries, rows

SMALL = 0.001


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all runs, so that a database is migrated once."""
    return tmp_path_factory.mktemp("benchmark")


def small(folder: Path, contestant: str, *workloads: str, rate: float = 0) -> list[dict[str, Any]]:
    """The results of a small run, by the way of the command line."""
    entered = [Entry(contestant, sys.executable)]
    results = list(run(entered, workloads, 1, folder, 60, SMALL, rate))
    errors = [Path(result["log"]).read_text()[-2000:] for result in results if "error" in result]
    assert not errors, errors
    assert not [report.disagreements(result) for result in results if report.disagreements(result)]
    return results


def test_ours_drains_and_enqueues_in_every_way(folder: Path) -> None:
    drain, enqueue = small(folder, "i3tasks:database_sqlite", "drain", "enqueue")
    assert (drain["tasks"], drain["done_in_store"], drain["bodies_run"], drain["repeated"]) == (10, 10, 10, 0)
    ways = {way: (figures["tasks"], figures["found_in_store"]) for way, figures in enqueue["ways"].items()}
    assert ways == dict.fromkeys(
        [
            "one by one",
            "delay_many",
            "delay_many, 1,000 at a time",
            "a group",
            "two plain inserts",
            "adelay one by one",
            "adelay, 1,000 at once",
        ],
        (3, 3),
    )
    assert report.tables([drain, enqueue]).count("i3tasks:database_sqlite") == 8


def test_ours_answers_on_the_embedded_emulator(folder: Path) -> None:
    [latency] = small(folder, "i3tasks:embedded_sqlite", "latency")
    assert latency["bodies_run"] == latency["tasks"] == 1
    assert latency["p50_ms"] is not None


def test_other_tasks_come_at_the_rate_that_is_given_or_half_as_many_as_were_drained(folder: Path) -> None:
    [load] = small(folder, "i3tasks:database_sqlite", "load", rate=500)
    assert load["bodies_run"] == load["tasks"] == 1
    assert 0 < load["other_tasks"] < 500
    drained = small(folder, "i3tasks:database_sqlite", "drain", "load")
    assert [result["workload"] for result in drained] == ["drain", "load"]
    assert small(folder, "i3tasks:database_sqlite", "load") == [], "there is no rate"


@pytest.mark.parametrize("variant", ["embedded_sqlite_threads", "embedded_sqlite_push"])
def test_ours_drains_in_threads_and_by_push(folder: Path, variant: str) -> None:
    [drain] = small(folder, f"i3tasks:{variant}", "drain")
    assert drain["done_in_store"] == drain["bodies_run"] == drain["tasks"] > 0


@pytest.mark.parametrize(
    "contestant",
    [
        "i3tasks:embedded_sqlite_push",
        "i3tasks:embedded_sqlite_push_view",
        "raw:push_embedded",
        "raw:push_asgi_embedded",
    ],
)
def test_pushes_by_a_client_are_all_accepted(folder: Path, contestant: str) -> None:
    [push] = small(folder, contestant, "push")
    ways = {way: (figures["accepted"], figures["found_in_store"]) for way, figures in push["ways"].items()}
    count = push["ways"]["1 at a time"]["tasks"]
    assert ways == {f"{at_once} at a time": (count, count) for at_once in AT_ONCE}
    assert report.tables([push]).count(contestant) == len(AT_ONCE)


@pytest.mark.postgres
@pytest.mark.django_db(transaction=True)
def test_growth_is_measured_beside_rows_that_ended() -> None:
    """Its rows are made, and each of its questions is answered."""

    def sql(query: str) -> None:
        with connection.cursor() as cursor:
            cursor.execute(query)

    rows.fill(sql, 2000)
    assert TaskExecution.objects.filter(outcome="failed").count() == 2
    asked = list(queries.measured())
    assert [question for question in asked if "error" in question] == []
    assert len(asked) == len(queries.questions())


@pytest.mark.postgres
def test_checks_of_growth_run() -> None:
    """All but `deferred`, which takes more than a minute at any size, and `finished`, whose parts are tested above."""
    sizes = {"members": 5, "groups": 20, "burst": 20, "through": 20}
    command = [sys.executable, "-m", "tests.benchmarks.scale", *(f"{name}={size}" for name, size in sizes.items())]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    printed = done.stdout.replace("}\n{", "},{")
    figures = {each.pop("check"): each for each in json.loads(f"[{printed}]")}
    assert list(figures) == list(sizes)
    assert (figures["members"]["done"], figures["through"]["done"]) == (6, 20)
    assert len(figures["burst"]) == 4
    assert all(per_second > 0 for name in ("groups", "burst") for per_second in figures[name].values())


def test_checks_are_measured_with_and_without_i3tasks(capsys: pytest.CaptureFixture[str]) -> None:
    medians = checking.main(1)
    assert set(medians) == {"with", "without"}
    assert all(seconds > 0 for seconds in medians.values())
    assert "ratio of the medians" in capsys.readouterr().out


# -------------------------------------------------------------------------------------------- what is measured


@pytest.mark.parametrize("name", [*OURS, *BOUNDS, *PEERS])
def test_each_contestant_is_defined_whole(name: str) -> None:
    blank = Entry(name, sys.executable).blank
    contestant = contestant_class(blank.contestant)(blank)
    assert contestant.described()
    assert set(contestant.bodies) <= {"async", "sync"}
    assert set(contestant.needs) <= set(SERVICES)
    assert bool(contestant.requires) == (name in PEERS)
    assert {"drain", "io", "enqueue"} <= contestant.sizes.keys()
    here = Path(sys.modules[type(contestant).__module__].__file__ or "").parent
    assert (here / "tasks" / f"{contestant.tasks}.py").exists()
    assert all(part[0].isalpha() for part in contestant.requires)


def test_workers_import_nothing_that_only_measures() -> None:
    code = "import sys, tests.benchmarks.contestants.i3tasks; print('psutil' in sys.modules, 'sqlite3' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


def test_contestants_take_turns_within_each_round() -> None:
    entered = [Entry("i3tasks:database", "python"), Entry("procrastinate", "python")]
    planned = [(number, entry.name, kind) for number, entry, _, kind in plan(entered, ["drain"], 2)]
    one_round = [("i3tasks:database", "noop_async"), ("procrastinate", "noop_async"), ("procrastinate", "noop_sync")]
    assert planned == [(number, *measure) for number in (1, 2) for measure in one_round]
    assert kinds_of(("sync",), "io") == ["io_sync"]
    assert set(RUN) == set(WORKLOADS) == set(report.COLUMNS)


def test_ours_need_no_environment_of_their_own(tmp_path: Path) -> None:
    said: list[str] = []
    assert [entry.python for entry in entries(["i3tasks", "raw"], tmp_path, said.append)] == [sys.executable] * 2
    assert (said, list(tmp_path.iterdir())) == ([], [])


# ------------------------------------------------------------------------------------------------- how it is shown


def results() -> list[dict[str, Any]]:
    def drain(contestant: str, number: int, rate: float, **more: Any) -> dict[str, Any]:
        figures = {"tasks": 10, "done_in_store": 10, "bodies_run": 10, "finished": True, "per_second": rate, **more}
        return {"contestant": contestant, "workload": "drain", "kind": "noop_async", "round": number, **figures}

    return [
        *(drain("i3tasks", number, rate) for number, rate in enumerate([1500, 1000, 5000], 1)),
        drain("a <peer>", 1, 400, repeated=2),
        {**drain("a <peer>", 2, 300), "finished": False, "done_in_store": 7},
        {"contestant": "broken", "workload": "drain", "kind": "noop_sync", "round": 1, "error": "it fell over"},
    ]


def test_tables_give_medians_and_say_what_went_wrong() -> None:
    text = report.tables(results())
    assert "| i3tasks | noop_async | 1,500 (1,000 to 5,000) |" in text
    assert "it fell over" in text
    assert "2 bodies ran again" in text
    assert "7 done in the store, 10 bodies, of 10" in text


def test_charts_are_drawn_from_the_same_results() -> None:
    drain = charts.CHARTS[0]
    found = charts.bars(drain, results())
    assert [(bar.label, bar.middle) for bar in found] == [("i3tasks, async", 1500), ("a <peer>, async", 350)]
    drawn = ElementTree.fromstring(charts.draw(drain.title, found))
    texts = [element.text for element in drawn.iter("{http://www.w3.org/2000/svg}text")]
    assert texts == [drain.title, "i3tasks, async", "1,500", "a <peer>, async", "350"]
