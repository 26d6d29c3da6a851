"""The report, made from the database alone: from the example's rows about files and from i3tasks's rows about work."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Iterator
from statistics import median

from django.db.models import Count, Max, Min, Q, QuerySet, Sum

from census.models import Census
from i3tasks.models import TaskExecution, TaskExecutionTry

SLOWEST = 8


def executions_of(census: Census) -> QuerySet[TaskExecution]:
    """The executions of the census: those that were enqueued since it began."""
    return TaskExecution.objects.filter(task_path="census.tasks", created_at__gte=census.started_at)


def tries_of(census: Census) -> QuerySet[TaskExecutionTry]:
    return TaskExecutionTry.objects.filter(task_execution__in=executions_of(census))


def lines(census: Census) -> Iterator[str]:
    """Write the report, line by line."""
    yield f"Census of the standard library of Python {platform.python_version()}"
    yield from _library(census)
    yield from _slowest(census)
    yield from _work(census)


def _library(census: Census) -> Iterator[str]:
    files = census.files.filter(measured_at__isnull=False)
    sums = files.aggregate(
        files=Count("pk"),
        unparsable=Count("pk", filter=~Q(problem="")),
        modules=Count("pk", filter=Q(documented_module=True)),
        **{name: Sum(name, default=0) for name in SUMMED},
    )
    parsed = sums["files"] - sums["unparsable"]
    yield from _rows(
        ("files", f"{sums['files']:,} of {census.files.count():,}"),
        ("unparsable", f"{sums['unparsable']:,}"),
        ("lines", f"{sums['lines']:,}"),
        ("classes", f"{sums['classes']:,}"),
        ("functions", f"{sums['functions']:,}, of them {sums['coroutines']:,} async"),
        ("docstrings", f"modules {_share(sums['modules'], parsed)}, "
                       f"classes {_share(sums['documented_classes'], sums['classes'])}, "
                       f"functions {_share(sums['documented_functions'], sums['functions'])}"),
    )  # fmt: skip


SUMMED = ("lines", "classes", "functions", "coroutines", "documented_functions", "documented_classes")


def _slowest(census: Census) -> Iterator[str]:
    yield ""
    yield "Slowest to parse"
    for file in census.files.filter(measured_at__isnull=False).order_by("-seconds")[:SLOWEST]:
        yield f"  {file.seconds * 1000:8.1f} ms  {file.lines:6,} lines  {file.path}"


def _work(census: Census) -> Iterator[str]:
    yield ""
    yield "Tasks              runs  tries  retried  failed   median   in queue (median)"
    for name in ("collect", "measure"):
        tries = tries_of(census).filter(task_execution__task_name=name)
        counts = tries.aggregate(
            runs=Count("task_execution", distinct=True),
            tries=Count("pk"),
            retried=Count("pk", filter=Q(try_number__gt=1)),
            failed=Count("pk", filter=Q(is_completed=True, is_success=False)),
        )
        times = list(tries.filter(is_success=True).values_list("asked_at", "started_at", "finished_at"))
        ran = median([(finished - started).total_seconds() for _, started, finished in times] or [0])
        waited = median([(started - asked).total_seconds() for asked, started, _ in times] or [0])
        yield (
            f"  {name:<14} {counts['runs']:6,} {counts['tries']:6,} {counts['retried']:8,} {counts['failed']:7,}"
            f"  {ran * 1000:4,.0f} ms   {waited * 1000:,.0f} ms"
        )
    span = tries_of(census).aggregate(first=Min("asked_at"), last=Max("finished_at"), count=Count("pk"))
    if span["last"]:
        seconds = (span["last"] - span["first"]).total_seconds()
        yield f"  {span['count']:,} tries in {seconds:.1f} s: {span['count'] / max(seconds, 0.001):,.0f} a second"


def _rows(*rows: tuple[str, str]) -> Iterable[str]:
    return (f"  {name:<12} {value}" for name, value in rows)


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.0f} %" if whole else "-"
