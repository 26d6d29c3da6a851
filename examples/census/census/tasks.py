"""The work: for each file of the library one `collect`, and for each text that it brought one `measure`.

A task runs at least once, so both may run again for the same file: they write the same row with the same values.
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

# Python 3.11's parser now and then raises SystemError when threads take turns inside it. Parsing holds the GIL anyway,
# so a lock of our own costs nothing.
one_at_a_time = threading.Lock()


@cache
def web() -> httpx.AsyncClient:
    """One client for all tasks of the worker: its connections are kept and used again."""
    return httpx.AsyncClient(base_url=settings.CENSUS_URL, trust_env=False, timeout=60)


@task
async def collect(census_id: int, path: str) -> int:
    """Fetch a file's text over HTTP and store it. A coroutine: hundreds wait for their answers at the same time."""
    answer = await web().get("/source/", params={"path": path})
    answer.raise_for_status()
    await SourceFile.objects.filter(census_id=census_id, path=path).aupdate(text=answer.text)
    await measure.adelay(census_id, path)
    return len(answer.text)


@task
def measure(census_id: int, path: str) -> int:
    """Parse a stored text and store its figures. Busy with the CPU, so a plain function: it runs in a thread."""
    text = SourceFile.objects.values_list("text", flat=True).get(census_id=census_id, path=path)
    with one_at_a_time:
        started = time.thread_time()
        figures = figures_of(text or "")
        seconds = time.thread_time() - started
    SourceFile.objects.filter(census_id=census_id, path=path).update(
        **asdict(figures), seconds=seconds, measured_at=timezone.now()
    )
    return figures.functions
