"""The broker goes away while a worker is busy, messages in hand: it says so once, and goes on by itself.

I3TASKS_OUTAGE_SECONDS is how long it stays away at least. By default it is until all that was in hand has ended.
"""

from __future__ import annotations

import re
import time
from collections import Counter

import pytest

from i3tasks import chain
from i3tasks.models import TaskExecution, TaskExecutionTry
from tests.faults.world import OUTAGE_SECONDS, World
from tests.shop.ledger import work
from tests.shop.models import Run
from tests.support.children import Child
from tests.support.google_emulator import GoogleEmulator
from tests.support.rigs import until

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.timeout(120 + 2 * OUTAGE_SECONDS)]

IN_HAND = 100
CHAINS = 20


def test_a_busy_worker_outlives_an_outage_of_its_broker(breakable_world: World) -> None:
    """Calls go on meanwhile: enqueueing takes the database only, and as long as ever."""
    world = breakable_world
    worker = world.worker()
    for number in range(CHAINS):  # their second steps are due in the middle of it
        chain(work.s(f"first {number}", 1.5), work.s(f"second {number}")).delay()
    world.load(IN_HAND - CHAINS, 1.5)
    world.load(IN_HAND, 0.3)
    world.until_begun(IN_HAND)
    world.emulator.kill()
    started = time.monotonic()
    world.load(100)
    took = time.monotonic() - started
    assert took < 30, f"enqueueing waited for the broker: {took:.1f} s"
    world.until_finished(IN_HAND)
    _stays_away(world, worker)
    world.emulator.start()
    world.until_finished(seconds=60)
    world.reckon()
    assert worker.process.poll() is None, worker.output
    assert set(Run.objects.values_list("process_id", flat=True)) == {worker.process.pid}
    assert Run.objects.count() == TaskExecution.objects.count(), "and nothing ran twice"
    assert not TaskExecutionTry.objects.filter(try_number__gt=1).exists()
    _told_once(worker, is_empty=isinstance(world.emulator, GoogleEmulator))


def _stays_away(world: World, worker: Child) -> None:
    until(lambda: _outages(worker).keys() >= {"default"}, what=lambda: worker.output)
    if OUTAGE_SECONDS:
        until(lambda: _outages(worker).keys() >= {"default", "heavy", "publisher"}, what=lambda: worker.output)
        back_at = time.monotonic() + OUTAGE_SECONDS
        until(lambda: time.monotonic() >= back_at, OUTAGE_SECONDS + 10)


def _told_once(worker: Child, *, is_empty: bool) -> None:
    """Once a part, which is the publisher, or a queue's receiver; that the broker is empty is other news."""
    until(lambda: re.search("event='(broker_recovered|receiver_restarted)' queue='default'", worker.output))
    assert set(_outages(worker).values()) == {1}, worker.output
    news = Counter(_parts(worker))
    assert max(news.values()) <= 1 + is_empty, worker.output
    assert "Traceback" not in worker.output


def _outages(worker: Child) -> Counter[str]:
    return Counter(_parts(worker, besides="Pub/Sub has no "))


def _parts(worker: Child, besides: str = "\n") -> list[str]:
    lines = re.findall("event='broker_unavailable'.*", worker.output)
    named = [re.search("(?:queue|what)='(publisher|default|heavy)'", line) for line in lines if besides not in line]
    return [found[1] for found in named if found]
