"""The command `manage.py play`: starts each workflow, waits for its end, and shows its result."""

import asyncio
from typing import Any

from django.core.management.base import BaseCommand

from i3tasks import RESULT, chain, group
from i3tasks.core.values import decode
from i3tasks.models import TaskExecution, TaskExecutionResult
from workflows.tasks import (
    add_up,
    announce,
    console,
    count_words,
    list_modules,
    measure,
    most_common,
    read,
    stumble,
    words,
)

MODULES = ["abc.py", "ast.py", "bisect.py", "calendar.py", "cmd.py", "code.py", "copy.py", "csv.py"]
SECONDS = 120


class Command(BaseCommand):
    help = "Run one workflow of each kind."

    def handle(self, *args: Any, **options: Any) -> None:
        asyncio.run(self._play())

    async def _play(self) -> None:
        await chain(read.s("this.py"), words.s(RESULT), most_common.s(RESULT, 3)).adelay()
        self._show("chain", await result_of("most_common"))

        album = await group(measure.s(name) for name in MODULES).then(announce.s("all measured")).adelay()
        self._show("group", f"{await result_of('announce')}, {album.total_count} members")

        await group(count_words.s(name) for name in MODULES).then(add_up.s(RESULT, 3)).adelay()
        self._show("map-reduce", await result_of("add_up"))

        handle = await list_modules.adelay("c*.py")
        await handle.athen(announce, "listed")
        self._show("then", f"{len(await handle.aresult(SECONDS))} modules, {await result_of('announce', number=2)}")

        await chain(stumble.s(), announce.s("never")).otherwise(console).adelay()
        self._show("otherwise", f"told of execution {await result_of('console')}")

        self._show("cron", await result_of("strike"))

    def _show(self, kind: str, result: object) -> None:
        self.stdout.write(f"  {kind:<11} {result}")
        self.stdout.flush()


async def result_of(task_name: str, *, number: int = 1) -> Any:
    """Wait until the task has succeeded `number` times. Returns its latest result."""
    ended = TaskExecution.objects.filter(task_name=task_name, outcome="success")
    async with asyncio.timeout(SECONDS):
        while await ended.acount() < number:
            await asyncio.sleep(0.05)
    execution = await ended.order_by("pk").alast()
    result = await TaskExecutionResult.objects.aget(task_execution_try__task_execution=execution)
    return decode(result.result)
