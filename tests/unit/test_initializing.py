"""`i3tasks init`: what it writes into a project, and what it leaves alone."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from i3tasks.cli import main
from i3tasks.management import initializing
from i3tasks.management.initializing.editing import add_to_list, import_from
from i3tasks.types import I3TasksSettings, PullQueue

SETTINGS = """\
from pathlib import Path

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth"
]  # ours
ROOT_URLCONF = "initshop.urls"
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "db.sqlite3"}}
"""
URLS = """\
from django.contrib import admin
from django.urls import path

urlpatterns = [
    path("admin/", admin.site.urls),
]
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A project whose settings package is called initshop, as the current folder."""
    for name, text in (("__init__", ""), ("settings", SETTINGS), ("urls", URLS)):
        (tmp_path / "initshop").mkdir(exist_ok=True)
        (tmp_path / "initshop" / f"{name}.py").write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("DJANGO_SETTINGS_MODULE", "initshop.settings")
    monkeypatch.setattr(sys, "path", list(sys.path))  # the command adds to it
    forget()
    yield tmp_path
    forget()


def forget() -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] in ("initshop", "initapp")]:
        del sys.modules[name]


def settings() -> ModuleType:
    forget()
    return import_module("initshop.settings")


def test_it_adds_app_settings_urls_and_a_first_task(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init", "--yes"]) == 0
    shown = capsys.readouterr().out
    assert '+    "i3tasks",' in shown
    assert "--- /dev/null\n+++ b/initshop/tasks.py" in shown
    assert "from initshop.tasks import greet" in shown

    made = settings()
    assert made.INSTALLED_APPS == ["django.contrib.admin", "django.contrib.auth", "i3tasks"]
    expected = I3TasksSettings(
        namespace="initshop", default_queue=PullQueue("default", "worker"), task_modules=("initshop.tasks",)
    )
    assert expected == made.I3TASKS
    assert made.PUBSUB_CONFIG == {"EMULATOR": True}
    assert made.DATABASES["default"]["OPTIONS"]["transaction_mode"] == "IMMEDIATE"
    assert (project / "initshop" / "urls.py").read_text() == URLS.replace(
        "import path", "import include, path"
    ).replace(
        "]\n",
        '    path("i3/board/", include("i3tasks.dashboard.urls")),\n    path("i3/", include("i3tasks.urls")),\n]\n',
    )
    compile((project / "initshop" / "tasks.py").read_text(), "tasks.py", "exec")


def test_a_second_time_there_is_nothing_to_do(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["init", "--yes"])
    before = {path: path.read_text() for path in project.rglob("*.py")}
    forget()
    assert main(["init"]) == 0
    assert "nothing to do" in capsys.readouterr().out
    assert {path: path.read_text() for path in project.rglob("*.py")} == before


def test_the_first_task_goes_to_the_first_app_of_the_project(project: Path) -> None:
    (project / "initapp").mkdir()
    (project / "initapp" / "__init__.py").touch()
    file = project / "initshop" / "settings.py"
    file.write_text(SETTINGS + 'INSTALLED_APPS += ["initapp.apps.InitConfig"]\n', encoding="utf-8")
    assert main(["init", "--yes"]) == 0
    assert (project / "initapp" / "tasks.py").exists()
    assert settings().INSTALLED_APPS[-2:] == ["initapp.apps.InitConfig", "i3tasks"]
    assert settings().I3TASKS.task_modules == ()


@pytest.mark.parametrize(("answer", "code"), [("y", 0), ("", 1), ("n", 1)])
def test_it_asks_first(project: Path, monkeypatch: pytest.MonkeyPatch, answer: str, code: int) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda _: answer)
    assert main(["init"]) == code
    assert (project / "initshop" / "tasks.py").exists() is (code == 0)


def test_without_a_terminal_it_shows_and_writes_nothing(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert initializing.main([]) == 1
    shown = capsys.readouterr()
    assert "+I3TASKS = " in shown.out
    assert "--yes" in shown.err
    assert settings().INSTALLED_APPS == ["django.contrib.admin", "django.contrib.auth"]


def test_settings_that_are_not_there_are_answered_in_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init", "--settings", "no.such.settings"]) == 1
    assert "'no.such.settings' can't be imported" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("X = []\n", "X = [1]\n"),
        ("X = ['é']\n", "X = ['é', 1]\n"),
        ("X = ['a',]\n", "X = ['a', 1]\n"),
        ("X: list = [\n    'a',\n    'b',\n]\n", "X: list = [\n    'a',\n    'b',\n    1,\n]\n"),
        ("X = [\n    'a'  # last\n]\n", "X = [\n    'a',  # last\n    1,\n]\n"),
        ("X = base() + ['a']\n", "X = base() + ['a']\n\nX += [1]\n"),
        ("from base import *\n", "from base import *\n\nX += [1]\n"),
    ],
)
def test_lists_in_all_their_forms(before: str, after: str) -> None:
    assert add_to_list(before, "X", ["1"]) == after


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("from a import b\n", "from a import b, c\n"),
        ("from a import c\n", "from a import c\n"),
        ("from a import b as d\n", "from a import b as d\nfrom a import c\n"),
        ('"""Doc."""\nimport x\n\nY = 1\n', '"""Doc."""\nimport x\nfrom a import c\n\nY = 1\n'),
        ('"""Doc."""\n\nY = 1\n', '"""Doc."""\n\nfrom a import c\n\nY = 1\n'),
    ],
)
def test_imports_in_all_their_forms(before: str, after: str) -> None:
    assert import_from(before, "a", ["c"]) == after


def test_the_quickstart_shows_by_hand_what_it_writes(project: Path) -> None:
    main(["init", "--yes"])
    page = (Path(__file__).resolve().parents[2] / "docs" / "quickstart.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    [by_hand, databases] = [block for block in blocks if "INSTALLED_APPS" in block or "DATABASES" in block]
    shown: dict[str, Any] = {"BASE_DIR": project}
    exec(by_hand + databases, shown)

    made = settings()
    assert replace(shown["I3TASKS"], namespace="initshop", task_modules=("initshop.tasks",)) == made.I3TASKS
    assert shown["PUBSUB_CONFIG"] == made.PUBSUB_CONFIG
    assert shown["DATABASES"]["default"]["OPTIONS"] == made.DATABASES["default"]["OPTIONS"]
    [urls] = [block for block in blocks if block.startswith("# urls.py")]
    written = (project / "initshop" / "urls.py").read_text()
    assert [line.strip() for line in urls.splitlines() if "i3/" in line] == [
        line.strip() for line in written.splitlines() if "i3/" in line
    ]


def test_ends_of_lines_stay(project: Path) -> None:
    path = project / "initshop" / "settings.py"
    path.write_bytes(SETTINGS.replace("\n", "\r\n").encode())
    assert main(["init", "--yes"]) == 0
    written = path.read_bytes()
    assert b"I3TASKS = " in written
    assert written.count(b"\n") == written.count(b"\r\n")


def test_a_link_out_of_the_folder_is_not_followed(
    project: Path, tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "urls.py"
    elsewhere.write_text(URLS)
    (project / "initshop" / "urls.py").unlink()
    (project / "initshop" / "urls.py").symlink_to(elsewhere)
    assert main(["init", "--yes"]) == 1
    assert "lies outside" in capsys.readouterr().err
    assert elsewhere.read_text() == URLS
