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


def write_app(project: Path, name: str) -> Path:
    """An app with a configuration of its own; returns its folder."""
    folder = project.joinpath(*name.split("."))
    folder.mkdir(parents=True)
    for parent in (folder, *folder.relative_to(project).parents[:-1]):
        (project / parent / "__init__.py").touch()
    code = f"from django.apps import AppConfig\n\n\nclass InitConfig(AppConfig):\n    name = {name!r}\n"
    (folder / "apps.py").write_text(code, encoding="utf-8")
    return folder


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
    write_app(project, "initapp")
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
        ("X = [\n    'a',\n    ('b')\n]\n", "X = [\n    'a',\n    ('b'),\n    1,\n]\n"),
        ("X = ['a', ('b')]\n", "X = ['a', ('b'), 1]\n"),
        ("X = [\n    'a',\n    # last\n]\n", "X = [\n    'a',\n    # last\n    1,\n]\n"),
        ("X = [  # none\n]\n", "X = [  # none\n    1,\n]\n"),
        ("X = [\n    'a',\n    'b']; Y = 2\n", "X = [\n    'a',\n    'b', 1]; Y = 2\n"),
        ("X = ('a', 'b')\n", "X = ('a', 'b', 1)\n"),
        ("X = ('a',)\n", "X = ('a', 1)\n"),
        ("X = ()\n", "X = (1,)\n"),
        ("X = (\n    'a',\n    'b'\n)\n", "X = (\n    'a',\n    'b',\n    1,\n)\n"),
        ("X = 'a', 'b'\n", "X = 'a', 'b'\n\nX = [*X, 1]\n"),
        ("X = base() + ['a']\n", "X = base() + ['a']\n\nX = [*X, 1]\n"),
        ("from base import *\n", "from base import *\n\nX = [*X, 1]\n"),
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
        ("from a import b  # why\n", "from a import b, c  # why\n"),
        ("from a import (b); Y = 1\n", "from a import b, c; Y = 1\n"),
        ("import é; from a import b; Y = 1\n", "import é; from a import b, c; Y = 1\n"),
        ("from a import *\n", "from a import *\nfrom a import c\n"),
        (
            "from a import (\n    b,\n)\n\nY = 1\nimport x\n",
            "from a import (\n    b,\n)\nfrom a import c\n\nY = 1\nimport x\n",
        ),
        ("from .a import b\n", "from .a import b\nfrom a import c\n"),
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


def test_an_app_in_a_package_called_apps_is_found(project: Path) -> None:
    folder = write_app(project, "initshop.apps.cart")
    with (project / "initshop" / "settings.py").open("a", encoding="utf-8") as file:
        file.write('INSTALLED_APPS += ["initshop.apps.cart"]\n')
    assert main(["init", "--yes"]) == 0
    assert (folder / "tasks.py").exists()
    assert settings().I3TASKS.task_modules == ()


def test_tasks_that_are_there_stay_and_no_other_is_promised(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (project / "initshop" / "tasks.py").write_text("OURS = 1\n")
    assert main(["init", "--yes"]) == 0
    shown = capsys.readouterr().out
    assert "initshop.tasks was there already" in shown
    assert "greet" not in shown
    assert (project / "initshop" / "tasks.py").read_text() == "OURS = 1\n"


@pytest.mark.parametrize(
    "apps",
    [
        'INSTALLED_APPS = ("django.contrib.admin", "django.contrib.auth")\n',
        'OF_DJANGO = ("django.contrib.admin",)\nINSTALLED_APPS = OF_DJANGO + ("django.contrib.auth",)\n',
        "from initshop.base import *\n",
        "from initshop.base import *\nINSTALLED_APPS = INSTALLED_APPS + ()\n",
    ],
)
def test_apps_are_added_to_tuples_and_to_what_another_module_sets(project: Path, apps: str) -> None:
    base = 'INSTALLED_APPS = ("django.contrib.admin", "django.contrib.auth")\n'
    (project / "initshop" / "base.py").write_text(base, encoding="utf-8")
    rest = SETTINGS.partition("# ours\n")[2]
    (project / "initshop" / "settings.py").write_text(apps + rest, encoding="utf-8")
    assert main(["init", "--yes"]) == 0
    assert [*settings().INSTALLED_APPS] == ["django.contrib.admin", "django.contrib.auth", "i3tasks"]


def test_a_project_of_pubsub_keeps_its_own_configuration(project: Path) -> None:
    with (project / "initshop" / "settings.py").open("a", encoding="utf-8") as file:
        file.write('PUBSUB_CONFIG = {"PROJECT_ID": "ours"}\n')
    assert main(["init", "--yes"]) == 0
    assert settings().PUBSUB_CONFIG == {"PROJECT_ID": "ours"}


def test_a_comment_about_the_urls_is_no_url(project: Path) -> None:
    path = project / "initshop" / "urls.py"
    path.write_text(URLS + "# i3tasks.urls will come\n", encoding="utf-8")
    assert main(["init", "--yes"]) == 0
    assert 'include("i3tasks.urls")' in path.read_text()


@pytest.mark.parametrize(
    ("settings_end", "said"),
    [
        ("from initshop.late import *\n", "INSTALLED_APPS is set once more below"),
        ("import os\nos.environ['INIT_IS_NOT_SET']\n", "KeyError: 'INIT_IS_NOT_SET'"),
        ("def broken(:\n", "SyntaxError"),
        ("from django.core.exceptions import ImproperlyConfigured\nraise ImproperlyConfigured('Set X')\n", "Set X"),
        ("assert len(INSTALLED_APPS) == 2, 'as before'\n", "the settings would fail: AssertionError: as before"),
    ],
)
def test_settings_that_it_can_not_change_are_answered_in_a_sentence(
    project: Path, capsys: pytest.CaptureFixture[str], settings_end: str, said: str
) -> None:
    (project / "initshop" / "late.py").write_text("INSTALLED_APPS = []\n", encoding="utf-8")
    path = project / "initshop" / "settings.py"
    path.write_text(SETTINGS + settings_end, encoding="utf-8")
    assert main(["init", "--yes"]) == 1
    answer = capsys.readouterr().err
    assert said in answer
    assert answer.strip().endswith("Write it by hand: docs/quickstart.md, or run this in the folder of manage.py.")
    assert path.read_text(encoding="utf-8") == SETTINGS + settings_end


def test_a_file_that_is_no_python_is_named(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (project / "initshop" / "urls.py").write_text("def broken(:\n", encoding="utf-8")
    assert main(["init", "--yes"]) == 1
    assert "urls.py can't be read: invalid syntax" in capsys.readouterr().err
    assert (project / "initshop" / "settings.py").read_text() == SETTINGS


def test_a_file_that_is_read_only_stays(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = project / "initshop" / "urls.py"
    path.chmod(0o444)
    assert main(["init", "--yes"]) == 1
    assert "urls.py is read-only." in capsys.readouterr().err
    assert path.read_text() == URLS
    assert (project / "initshop" / "settings.py").read_text() == SETTINGS, "all of it or nothing"
