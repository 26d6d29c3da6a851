"""`i3tasks dev`: which processes it starts, and what it refuses to start with."""

from __future__ import annotations

import io
import socket
from dataclasses import replace
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from i3tasks.conf import get_config
from i3tasks.management.developing import asgi
from i3tasks.management.developing.output import Terminal
from i3tasks.management.developing.parts import asgi_app, members, told
from i3tasks.types import PushQueue
from tests.support.children import free_port

ADDRESS = "127.0.0.1:8000"


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


def started(app: str | None = None, address: str | None = ADDRESS) -> dict[str, list[str]]:
    found = members(get_config(), Terminal(io.StringIO()), address, app, 1)
    return {member.name: list(member.command) for member in found}


def test_web_worker_and_beat_are_started() -> None:
    commands = started()
    assert list(commands) == ["web", "worker", "beat"]
    assert {"runserver", "--noreload", ADDRESS} <= set(commands["web"])
    assert {"i3tasks_worker", "--no-emulator"} <= set(commands["worker"])
    assert "i3tasks_beat" in commands["beat"]


def test_uvicorn_serves_an_asgi_application() -> None:
    assert asgi_app("tests.asgi:application") == "tests.asgi:application"
    assert {"uvicorn", "--port", "8000"} <= set(started("tests.asgi:application")["web"])


def test_without_an_address_there_is_no_web_server() -> None:
    assert list(started(address=None)) == ["worker", "beat"]


def test_without_a_pull_queue_there_is_no_worker(settings: Any) -> None:
    settings.I3TASKS = replace(
        settings.I3TASKS,
        default_queue=PushQueue("default", "web", "https://shop.example.com/i3/tasks-push/"),
        other_queues=(),
    )
    assert list(started()) == ["web", "beat"]
    assert not [line for line in told(get_config(), ADDRESS, None, []) if line.startswith("worker")]


def test_the_address_of_the_board_is_said() -> None:
    assert "board   http://127.0.0.1:8000/i3/board/" in told(get_config(), ADDRESS, None, [])


@pytest.mark.parametrize("app", ["tests.asgi", "no.such.module:application", ":application"])
def test_an_application_that_is_not_there_is_refused(app: str) -> None:
    with pytest.raises(CommandError, match="Name it as module:attribute"):
        asgi_app(app)


def test_an_application_that_its_module_has_not_is_named_to_uvicorn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(asgi.APP_VARIABLE, "tests.asgi:nothing")
    with pytest.raises(ImportError, match=r"'tests.asgi:nothing' can't be loaded.*Name it as module:attribute"):
        _ = asgi.application


def test_a_port_that_is_taken_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    command = "i3tasks.management.commands.i3tasks_dev"
    monkeypatch.setattr(f"{command}._prepare_environment", lambda _: None)
    monkeypatch.setattr(f"{command}.show_events", lambda _: None)
    with socket.create_server(("127.0.0.1", free_port())) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(CommandError, match=f"listens on 127.0.0.1:{port} already"):
            call_command("i3tasks_dev", address=f"127.0.0.1:{port}")


def test_missing_migrations_of_i3tasks_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    command = "i3tasks.management.commands.i3tasks_dev"
    monkeypatch.setattr(f"{command}._prepare_environment", lambda _: None)
    monkeypatch.setattr(f"{command}.show_events", lambda _: None)
    monkeypatch.setattr(f"{command}.missing_migrations", lambda: ["i3tasks", "shop"])
    with pytest.raises(CommandError, match="dev --migrate"):
        call_command("i3tasks_dev", no_web=True)


def test_each_line_has_the_name_of_its_process_in_its_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    plain, coloured = io.StringIO(), Screen()
    for screen in (plain, coloured):
        terminal = Terminal(screen)
        terminal.writer("dev")("two\nlines")
        terminal.reader("web")([b"\xe2\x82\xac 5 \xff\r\n", b"the last one"])
    assert plain.getvalue() == "dev      | two\ndev      | lines\nweb      | € 5 \ufffd\nweb      | the last one\n"
    assert coloured.getvalue().startswith("\x1b[1mdev      | \x1b[0mtwo\n")


def test_colours_can_be_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    assert not Terminal(Screen()).has_colours
