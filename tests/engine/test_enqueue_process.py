"""Enqueueing from processes of every kind: ones that end at once, that fork, or that have other databases."""

from __future__ import annotations

import asyncio

import pytest

from i3tasks.models import TaskExecution
from tests.support.children import Children
from tests.support.rigs import afinished, until, working

pytestmark = pytest.mark.django_db(transaction=True)

SET_UP = "import django; django.setup(); from tests.shop.tasks import add\n"


async def run_all(count: int) -> None:
    """Run what arrives. Nothing is due for the dispatcher, so it arrived by itself."""
    async with working():
        await afinished(count)


def test_the_message_of_a_process_that_ends_at_once_arrives(children: Children) -> None:
    script = children.run("-c", f"{SET_UP}add.delay(1, 2)", flush_seconds=60)  # as long as a slow machine takes
    assert script.ends() == 0, script.output
    told = [line for line in script.output.splitlines() if " INFO event='provisioned' change='create " not in line]
    assert not told, "it says nothing but which topics and subscriptions it was the first to need"
    asyncio.run(run_all(1))
    assert TaskExecution.objects.get().tries.get().publish_count == 1, "its confirmation was noted before the exit"


def test_a_process_whose_broker_is_away_ends_soon_and_loses_nothing(children: Children) -> None:
    children.changes["pubsub"] = {"EMULATOR": True, "HOST": "127.0.0.1:1", "PROJECT_ID": "test"}
    script = children.run("-c", f"{SET_UP}add.delay(1, 2)", flush_seconds=0.5)
    assert script.ends() == 0
    assert TaskExecution.objects.get().tries.get().dispatch_at is not None


FORK = f"""{SET_UP}
import os, sys
add.delay(1, 2)
if sys.argv[1] == "flushed":  # or while the parent's publish is under way
    from i3tasks.broker.publisher import get_publisher
    get_publisher().flush(20)
from django.db import connections
connections.close_all()  # as any forking server does
children = [os.fork() for _ in range(1)]
add.delay(3, 4)
if children[0]:
    assert os.waitpid(children[0], 0)[1] == 0
"""


@pytest.mark.parametrize("when", ["flushed", "publishing"])
def test_parent_and_child_of_a_fork_both_reach_the_broker(children: Children, when: str) -> None:
    script = children.run("-c", FORK, when)
    assert script.ends() == 0, script.output
    assert "Traceback" not in script.output
    asyncio.run(run_all(3))
    arguments = sorted(execution.task_args[0] for execution in TaskExecution.objects.all())
    assert arguments == [1, 3, 3]


def test_another_databases_transaction_has_no_part_in_it(children: Children) -> None:
    script = children.run(
        "-c",
        f"""{SET_UP}
from django.db import transaction
with transaction.atomic(using="other"):
    add.delay(1, 2)
    transaction.set_rollback(True, using="other")
with transaction.atomic():
    add.delay(3, 4)
    transaction.set_rollback(True)
""",
    )
    assert script.ends() == 0, script.output
    assert [execution.task_args for execution in TaskExecution.objects.all()] == [[1, 2]]


def test_a_script_that_is_run_can_define_no_task(children: Children) -> None:
    script = children.run("-c", "import django; django.setup()\nfrom i3tasks import task\n@task\ndef here(): ...\n")
    assert script.ends() == 1
    until(lambda: "TaskDefinitionError" in script.output, what=lambda: script.output)
