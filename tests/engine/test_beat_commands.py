"""`i3tasks beat`, and what `ensure-pubsub` says of it."""

import json
import signal
import sys
from datetime import timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import OperationalError
from django.utils import timezone

from i3tasks import schedule_task
from i3tasks.engine.beat import Beat
from i3tasks.models import ScheduleTick, TaskExecution, TaskExecutionTry
from i3tasks.types import I3TasksSettings, PushQueue
from tests.process_settings import CHANGES
from tests.shop.tasks import add
from tests.support.databases import child_environment
from tests.support.processes import Marked
from tests.support.rigs import NotingPublisher

pytestmark = [pytest.mark.django_db(transaction=True)]

ROOT = Path(__file__).resolve().parents[2]


def environment() -> dict[str, str]:
    """For a process that does not wait at its end: nothing listens where its messages go."""
    changes = {CHANGES: json.dumps({"i3tasks": {"flush_seconds": 0}})}
    return child_environment(**{**changes, "DJANGO_SETTINGS_MODULE": "tests.process_settings"})


def test_one_pass_enqueues_and_publishes(sent: NotingPublisher) -> None:
    schedule_task(add, "* * * * *", args=[1, 2])
    call_command("i3tasks_beat", "--once")

    assert ScheduleTick.objects.count() == 1
    assert set(sent.try_ids) == {TaskExecutionTry.objects.get().pk}


@pytest.mark.usefixtures("sent")
def test_one_pass_without_the_database_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def away() -> Any:
        raise OperationalError("away")

    monkeypatch.setattr("i3tasks.engine.beat.known_schedules", away)
    with pytest.raises(CommandError, match="no answer"):
        call_command("i3tasks_beat", "--once")


def test_it_beats_until_sigterm(tmp_path: Path) -> None:
    schedule_task(add, "* * * * *", args=[1, 2])
    process = Marked(tmp_path / "beat.log")
    command = [sys.executable, "-c", "from i3tasks.cli import main; main()", "beat"]
    process.start(command, env=environment(), cwd=ROOT)
    try:
        process.until(ScheduleTick.objects.exists)
        process.send(signal.SIGTERM)
        assert process.wait(30) == 0, process.text()
    finally:
        process.end()
    assert "Traceback" not in process.text()


def test_processes_that_catch_up_at_once_enqueue_each_slot_once(tmp_path: Path) -> None:
    names = ["a", "b", "c"]
    for name in names:
        schedule_task(add, "* * * * *", name=name, args=[1, 2], catch_up="all")
    Beat().pass_once(timezone.now() - timedelta(hours=5))
    processes = [Marked(tmp_path / f"beat-{number}.log") for number in range(4)]
    command = [sys.executable, "-m", "django", "i3tasks_beat", "--once"]
    try:
        for process in processes:
            process.start(command, env=environment(), cwd=ROOT)
        assert [process.wait() for process in processes] == [0] * 4, [process.text() for process in processes]
    finally:
        for process in processes:
            process.end()
    for name in names:
        slots = list(ScheduleTick.objects.filter(schedule_key=name).order_by("slot").values_list("slot", flat=True))
        assert len(slots) >= 300
        assert slots == [slots[0] + minute * timedelta(minutes=1) for minute in range(len(slots))]
    assert TaskExecution.objects.count() == ScheduleTick.objects.exclude(execution=None).count()


def test_ensure_pubsub_prints_the_commands(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PUBSUB_EMULATOR_HOST", raising=False)
    push = PushQueue("mail", "web", "https://shop.example.com/i3/tasks-push/", "push@shop-1.iam.gserviceaccount.com")
    unsigned = PushQueue("film", "web", "https://shop.example.com/i3/tasks-push/")
    settings.PUBSUB_CONFIG = {"PROJECT_ID": "shop-1"}
    settings.I3TASKS = I3TasksSettings(other_queues=(push, unsigned))
    monkeypatch.setattr("i3tasks.management.commands.i3tasks_ensure_pubsub.ensure", lambda config, dry_run: [])

    out = StringIO()
    call_command("i3tasks_ensure_pubsub", stdout=out)

    lines = [line.split() for line in out.getvalue().splitlines()]
    (beat,) = [line for line in lines if line[:5] == ["gcloud", "scheduler", "jobs", "create", "http"]]
    assert "--uri=https://shop.example.com/i3/tasks-beat/" in beat
    assert "--oidc-service-account-email=push@shop-1.iam.gserviceaccount.com" in beat
    assert [line for line in lines if "--role=roles/run.invoker" in line]
    assert "Pushes of the queue 'film' are not signed: set service_account in I3TASKS" in out.getvalue()
    assert "'mail' are not signed" not in out.getvalue()


def test_ensure_pubsub_on_an_emulator_prints_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("i3tasks.management.commands.i3tasks_ensure_pubsub.ensure", lambda config, dry_run: [])
    out = StringIO()
    call_command("i3tasks_ensure_pubsub", stdout=out)
    assert "gcloud" not in out.getvalue()
