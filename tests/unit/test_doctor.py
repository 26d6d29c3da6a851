"""`i3tasks doctor`: on a project as django-i3tasks documents it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from i3tasks.management.doctoring.sources import changes, findings_of_sources, renamed

SETTINGS = """
from django_i3tasks.types import I3TasksSettings, PushQueue, Schedule
SECRET_KEY = "x"
USE_TZ = True
ROOT_URLCONF = "shop.urls"
INSTALLED_APPS = ["django.contrib.contenttypes", "django_i3tasks", "shop"]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "shop.sqlite3"}}
PUBSUB_CONFIG = {"EMULATOR": False, "PROJECT_ID": "shop"}
I3TASKS = I3TasksSettings(
    namespace="shop",
    default_queue=PushQueue("default", "web", "https://shop.example.com/i3/tasks-push/"),
    schedules=(Schedule("django_i3tasks.tasks", "autoclean_task", "0 3 * * *", [], {}),),
)
"""
FILES = {
    "manage.py": 'import os\nos.environ.setdefault("DJANGO_SETTINGS_MODULE", "shop.settings")\n',
    "requirements.txt": "django\n# not django-i3tasks\ndjango-i3tasks==0.1.9\n",
    "shop/__init__.py": "",
    "shop/settings.py": SETTINGS,
    "shop/urls.py": """
from django.urls import include, path
urlpatterns = [path("i3/", include("django_i3tasks.urls"))]
""",
    "shop/tasks.py": """
from django_i3tasks.utils import TaskDecorator

@TaskDecorator
def add(x, y):
    return x + y
""",
    "shop/flows.py": "from django_i3tasks.chain import ChainHandle\nimport django_i3tasks.queue_manager\n",
    ".venv/lib/django_i3tasks/models.py": "import django_i3tasks.types\n",
}
GONE = [
    "from django_i3tasks.chain import ChainHandle, Chain",
    "from django_i3tasks.chain import (ChainHandle, Chain)",
    "from django_i3tasks import views, signals",
    "from django_i3tasks import (\n    models,\n    views,\n)",
    "from django_i3tasks import models, \\\n    views",
    "from django_i3tasks import *",
]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def doctor(project: Path, *options: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "DJANGO_SETTINGS_MODULE"}
    environment.pop("PUBSUB_EMULATOR_HOST", None)
    return subprocess.run(
        [sys.executable, "-m", "i3tasks", "doctor", *options],
        cwd=project,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("from django_i3tasks.utils import TaskDecorator", "from i3tasks.utils import TaskDecorator"),
        ("from django_i3tasks import models", "from i3tasks import models"),
        ("import django_i3tasks.types as types", "import i3tasks.types as types"),
        ("from django_i3tasks.chain import ChainHandle", "from i3tasks import ChainHandle"),
        ('include("django_i3tasks.urls")', 'include("i3tasks.urls")'),
        ('"django_i3tasks.apps.DjangoI3TasksConfig"', '"i3tasks"'),
        (
            'Schedule("django_i3tasks.tasks", "autoclean_task", "0 3 * * *")',
            'Schedule("i3tasks.tasks", "autoclean_task", "0 3 * * *")',
        ),
        ("from django_i3tasks.queue_manager import x", "from django_i3tasks.queue_manager import x"),
        ("my_django_i3tasks = 1", "my_django_i3tasks = 1"),
        (
            "from django_i3tasks.chain import ChainHandle as Handle  # ours",
            "from i3tasks import ChainHandle as Handle  # ours",
        ),
        (
            "from django_i3tasks import (\n  models as m,  # rows\n  urls,\n)",
            "from i3tasks import (\n  models as m,  # rows\n  urls,\n)",
        ),
        *((text, text) for text in GONE),
        ("# https://github.com/x/django_i3tasks.git", "# https://github.com/x/django_i3tasks.git"),
    ],
)
def test_names_with_a_counterpart_are_renamed(old: str, new: str) -> None:
    assert renamed(old) == new


def test_each_line_is_found_and_said_to_be_fixable_or_not(project: Path) -> None:
    found = {finding.where: finding for finding in findings_of_sources(project)}
    assert sorted(found) == [
        "requirements.txt:3",
        "shop/flows.py:1",
        "shop/flows.py:2",
        "shop/settings.py:12",
        "shop/settings.py:2",
        "shop/settings.py:6",
        "shop/tasks.py:2",
        "shop/urls.py:3",
    ]
    assert [where for where, finding in found.items() if not finding.can_be_fixed] == [
        "shop/flows.py:2",
        "requirements.txt:3",
    ]
    assert "django_i3tasks.queue_manager has no counterpart" in str(found["shop/flows.py:2"])


@pytest.mark.parametrize("text", GONE)
def test_what_is_not_renamed_is_reported(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.py").write_text(f"{text}\n# https://github.com/x/django_i3tasks\n")
    found = findings_of_sources(tmp_path)
    assert len(found) == 1
    assert "no counterpart" in str(found[0])
    assert not found[0].can_be_fixed
    assert changes(tmp_path) == []


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"import django_i3tasks\r\nx = 1\r\n", b"import i3tasks\r\nx = 1\r\n"),
        (b"import django_i3tasks\r\nx = 1\n", b"import i3tasks\r\nx = 1\n"),
        (b"# coding: latin-1\nimport django_i3tasks  # \xe9", b"# coding: latin-1\nimport i3tasks  # \xe9"),
        (b"\xef\xbb\xbfimport django_i3tasks\n", b"\xef\xbb\xbfimport i3tasks\n"),
    ],
)
def test_only_the_name_is_written(tmp_path: Path, before: bytes, after: bytes) -> None:
    path = tmp_path / "a.py"
    path.write_bytes(before)
    path.chmod(0o750)
    (change,) = changes(tmp_path)
    changed = [line for line in change.diff().splitlines()[2:] if line.startswith(("+", "-"))]
    assert len(changed) == 2

    change.write()

    assert path.read_bytes() == after
    assert path.stat().st_mode & 0o777 == 0o750
    assert [*tmp_path.iterdir()] == [path]


def test_a_write_that_is_interrupted_leaves_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.py"
    path.write_text("import django_i3tasks\n")
    (change,) = changes(tmp_path)

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        change.write()
    assert path.read_text() == "import django_i3tasks\n"
    assert [*tmp_path.iterdir()] == [path]


def test_links_are_passed_by_and_what_cannot_be_read_is_said(tmp_path: Path) -> None:
    folder = tmp_path / "project"
    folder.mkdir()
    (tmp_path / "elsewhere.py").write_text("import django_i3tasks\n")
    (folder / "link.py").symlink_to(tmp_path / "elsewhere.py")
    assert changes(folder) == []
    assert findings_of_sources(folder) == []

    (folder / "broken.py").write_bytes(b"import django_i3tasks  # \xe9\n")
    assert ["can't be read" in str(finding) for finding in findings_of_sources(folder)] == [True]
    assert changes(folder) == []


def test_a_difference_is_shown_and_only_names_change(project: Path) -> None:
    made = {change.name: change for change in changes(project)}
    assert sorted(made) == ["shop/flows.py", "shop/settings.py", "shop/tasks.py", "shop/urls.py"]
    assert made["shop/tasks.py"].diff().splitlines()[4:6] == [
        "-from django_i3tasks.utils import TaskDecorator",
        "+from i3tasks.utils import TaskDecorator",
    ]


def test_it_leads_from_django_i3tasks_to_a_project_with_nothing_left_to_do(project: Path) -> None:
    asked = doctor(project, "--fix")
    assert asked.returncode == 1
    assert "Nothing was written" in asked.stderr
    assert (project / "shop/settings.py").read_text() == SETTINGS

    written = doctor(project, "--fix", "--yes")
    assert written.returncode == 1
    assert "requires django-i3tasks" in written.stdout
    assert "django_i3tasks" not in (project / "shop/settings.py").read_text()

    (project / "shop/flows.py").unlink()
    (project / "requirements.txt").write_text("i3tasks\n")
    project_left = doctor(project)
    assert project_left.returncode == 1, project_left.stderr
    for said in ("i3tasks.E008", "i3tasks.W006", "i3tasks.W002", "Migrations are missing", "manage.py migrate"):
        assert said in project_left.stdout, said
    assert "have no URL" not in project_left.stdout
