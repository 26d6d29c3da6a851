"""`i3tasks_status`, also `i3tasks status`: what became of one execution; exit code 1 when there is none."""

from __future__ import annotations

import json
import sys
from typing import Any
from uuid import UUID

from asgiref.sync import async_to_sync
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.core.serializers.json import DjangoJSONEncoder

from ...store import reports


class Command(BaseCommand):
    help = "Say what became of an execution, as the status endpoint does. Exit code 1 when nothing is known of it."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("execution", metavar="ID_OR_UUID", type=_key, help="The execution's id, or its uuid.")
        parser.add_argument("--json", action="store_true", dest="as_json", help="The status endpoint's JSON.")

    def handle(self, *args: Any, execution: dict[str, Any], as_json: bool = False, **options: Any) -> None:
        report = async_to_sync(reports.status)(**execution)
        if as_json:
            self.stdout.write(json.dumps(report or {"status": "not_found"}, indent=2, cls=DjangoJSONEncoder))
        elif report is None:
            raise CommandError(f"There is no execution {next(iter(execution.values()))}.")
        else:
            self.stdout.write(_readable(report))
        if report is None or report["status"] == "unknown":
            sys.exit(1)


def _key(text: str) -> dict[str, Any]:
    return {"id": int(text)} if text.isdecimal() else {"uuid": UUID(text)}


_key.__name__ = "id or uuid"  # argparse shows it: "invalid id or uuid value"


def _readable(report: dict[str, Any]) -> str:
    task = report["task"]
    arguments = [json.dumps(value, cls=DjangoJSONEncoder) for value in (task["task_args"], task["task_kwargs"])]
    return "\n".join(
        [
            f"{report['status']}: {task['task_path']}.{task['task_name']} with {arguments[0]} {arguments[1]}",
            f"  id {task['id']}, uuid {task['uuid']}, created {task['created_at']}",
            *(_line(item) for item in report["tries"]),
        ]
    )


def _line(item: dict[str, Any]) -> str:
    if item["finished_at"] is None:
        began = f"started {item['started_at']}" if item["started_at"] else "waits"
        return f"  try {item['try_number']}: asked {item['asked_at']}, {began}"
    result = json.dumps(item["result"], cls=DjangoJSONEncoder)
    ended = "success" if item["is_success"] else "failed"
    return f"  try {item['try_number']}: asked {item['asked_at']}, {ended} {item['finished_at']}: {result}"
