"""The tasks: one `collect` for each file of the library, and one `measure` for each text that `collect` stored.

If a worker dies, its tries are repeated, so both tasks may run twice for a file. That does no harm: they write the same
values to the same row, and the call's idempotency key keeps `measure` from being enqueued twice.
"""

import threading
import time
from dataclasses import asdict
from functools import cache

import httpx
from django.conf import settings
from django.utils import timezone

from census.figures import figures_of
from census.models import SourceFile
from i3tasks import task

# Python 3.11's parser sometimes raises SystemError when several threads use it. Parsing holds the GIL anyway, so this
# lock costs nothing.
one_at_a_time = threading.Lock()


@cache
def web() -> httpx.AsyncClient:
    """Give the one client of all the worker's tasks, which keeps its connections and uses them again."""
    return httpx.AsyncClient(base_url=settings.CENSUS_URL, trust_env=False, timeout=60)


@task
async def collect(census_id: int, path: str) -> int:
    """Fetch a file's text over HTTP and store it. As a coroutine, so that hundreds can wait for answers at once."""
    answer = await web().get("/source/", params={"path": path})
    answer.raise_for_status()
    await SourceFile.objects.filter(census_id=census_id, path=path).aupdate(text=answer.text)
    await measure.using(idempotency_key=f"{census_id}:{path}").adelay(census_id, path)
    return len(answer.text)


@task
def measure(census_id: int, path: str) -> int:
    """Parse a stored text and store its figures. As a plain function, run in a thread, because it uses the CPU."""
    text = SourceFile.objects.values_list("text", flat=True).get(census_id=census_id, path=path)
    with one_at_a_time:
        started = time.thread_time()
        figures = figures_of(text or "")
        seconds = time.thread_time() - started
    SourceFile.objects.filter(census_id=census_id, path=path).update(
        **asdict(figures), seconds=seconds, measured_at=timezone.now()
    )
    return figures.functions
