"""What the collector of a worker is spared: runs leave no cycles, and their objects do not set it off."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from i3tasks.engine.garbage import MOST_OBJECTS, OBJECTS_OF_A_TRY, collected_rarely
from i3tasks.engine.lease_renewal import Run
from i3tasks.engine.report import Verdict
from tests.engine.test_executor import enqueued, running_engine
from tests.shop.tasks import aadd, add
from tests.support.rigs import delivery_of


def runs() -> list[Run]:
    return [thing for thing in gc.get_objects() if isinstance(thing, Run)]


@pytest.fixture
def as_it_was() -> Iterator[None]:
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)
    gc.enable()


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("sent", "as_it_was")
@pytest.mark.parametrize("task", [add, aadd])
async def test_a_run_is_freed_without_the_collector(task: object) -> None:
    tries = [await enqueued(task, 1, 2) for _ in range(3)]
    gc.collect()
    before = runs()  # of tests whose bodies hang
    gc.disable()
    async with running_engine() as engine:
        for task_try in tries:
            assert (await engine.executor.execute(delivery_of(task_try))).verdict is Verdict.ACK

    assert [run for run in runs() if run not in before] == []


@pytest.mark.usefixtures("as_it_was")
@pytest.mark.parametrize(("concurrency", "objects"), [(500, 500 * OBJECTS_OF_A_TRY), (20_000, MOST_OBJECTS)])
def test_the_objects_of_the_tries_under_way_do_not_set_it_off(concurrency: int, objects: int) -> None:
    gc.set_threshold(700, 10, 10)
    with collected_rarely(concurrency):
        assert gc.get_threshold() == (objects, 10, 10)
        assert gc.get_freeze_count() > 10_000, "what was imported is left alone"
    assert gc.get_threshold() == (700, 10, 10)
    assert gc.get_freeze_count() == 0


@pytest.mark.usefixtures("as_it_was")
@pytest.mark.parametrize("chosen", [0, 1_000_000])
def test_what_the_project_has_chosen_stays(chosen: int) -> None:
    gc.set_threshold(chosen, 5, 5)
    with collected_rarely(10):
        assert gc.get_threshold() == (chosen, 5, 5)
