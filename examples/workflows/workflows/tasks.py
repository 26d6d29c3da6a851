"""Small tasks over the text of Python's standard library, as steps for the workflows."""

import re
import sysconfig
from collections import Counter
from pathlib import Path

from i3tasks import task

LIBRARY = Path(sysconfig.get_paths()["stdlib"])


@task
def list_modules(pattern: str) -> list[str]:
    return sorted(path.name for path in LIBRARY.glob(pattern))


@task
def read(name: str) -> str:
    return (LIBRARY / name).read_text(encoding="utf-8", errors="replace")


@task
async def words(text: str) -> list[str]:
    return re.findall(r"[a-z]{4,}", text.lower())


@task
async def most_common(found: list[str], number: int) -> dict[str, int]:
    return dict(Counter(found).most_common(number))


@task
def count_words(name: str) -> dict[str, int]:
    text = (LIBRARY / name).read_text(encoding="utf-8", errors="replace")
    return dict(Counter(re.findall(r"[a-z]{4,}", text.lower())).most_common(200))


@task
async def add_up(counts: list[dict[str, int]], number: int) -> dict[str, int]:
    total: Counter[str] = Counter()
    for count in counts:
        total.update(count)
    return dict(total.most_common(number))


@task
def measure(name: str) -> int:
    return (LIBRARY / name).stat().st_size


@task
async def announce(text: str) -> str:
    return text


@task(max_retries=0)
def stumble() -> None:
    raise RuntimeError("stumbled, as planned")


@task
def console(failed_execution_id: int) -> int:
    return failed_execution_id


@task
async def strike(who: str) -> str:
    return f"{who} struck"
