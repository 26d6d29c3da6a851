"""Looks at what a release would upload: `python -m tests.release dist`. `--try-on PYTHON` installs and runs it."""

from __future__ import annotations

import argparse
import os
import re
import socket
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from email import message_from_bytes
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
IN_WHEEL = (
    "i3tasks/py.typed",
    "i3tasks/templates/i3tasks/board/base.html",
    "i3tasks/management/commands/i3tasks_worker.py",
)
IN_SDIST = (
    "README.md",
    "CHANGELOG.md",
    "LICENSE",
    "docs/index.md",
    "tests/run.py",
    "examples/census/run.py",
    "noxfile.py",
)
LINKS = ("Repository", "Documentation", "Changelog")
HELP = (["--version"], ["--help"], ["run-worker", "--help"], ["emulator", "--help"], ["doctor", "--help"])
ENQUEUE = "from shop.tasks import greet; greet.delay('Ada')"
LOOK = "from i3tasks.models import TaskExecution as E; assert E.objects.get().outcome == 'success'"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--try-on", metavar="PYTHON")
    parser.add_argument("--to-upload", action="store_true", help="links are needed, too")
    options = parser.parse_args()
    [wheel] = options.folder.glob("*.whl")
    if options.try_on:
        return try_on(options.try_on, wheel)
    [sdist] = options.folder.glob("*.tar.gz")
    problems = [*versions(wheel, sdist), *contents(wheel, sdist)]
    missing = links(wheel)
    if options.to_upload:
        problems += missing
    elif missing:
        print("Not to be uploaded: `nox -s release -- ADDRESS` gives it the links that an index shows.")
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


def version() -> str:
    found = re.search(r'^__version__ = "(.+)"$', (ROOT / "src/i3tasks/__init__.py").read_text(), re.MULTILINE)
    assert found is not None
    return found[1]


def versions(wheel: Path, sdist: Path) -> list[str]:
    """Where the version is another one than that of the package."""
    wanted = version()
    problems = [f"{path.name} is not of version {wanted}" for path in (wheel, sdist) if f"-{wanted}" not in path.name]
    if f"\n## [{wanted}]" not in (ROOT / "CHANGELOG.md").read_text():
        problems.append(f"CHANGELOG.md has no section {wanted}")
    if f"i3tasks {wanted}" not in (ROOT / "docs/understand/comparison.md").read_text():
        problems.append(f"docs/understand/comparison.md compares another version than {wanted}")
    return problems


def contents(wheel: Path, sdist: Path) -> list[str]:
    """What is missing from the files, or should not be in them."""
    with zipfile.ZipFile(wheel) as archive:
        packed = set(archive.namelist())
    with tarfile.open(sdist) as archive:
        sources = {name.partition("/")[2] for name in archive.getnames()}
    problems = [f"{name} is missing from the wheel" for name in IN_WHEEL if name not in packed]
    problems += [f"{name} is missing from the sdist" for name in IN_SDIST if name not in sources]
    modules = {
        str(path.relative_to(ROOT / "src"))
        for path in (ROOT / "src/i3tasks").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    problems += [f"{name} is missing from the wheel" for name in sorted(modules - packed)]
    foreign = {name for name in packed if not name.startswith(("i3tasks/", "i3tasks-"))}
    return problems + [f"{name} is in the wheel" for name in sorted(foreign)]


def links(wheel: Path) -> list[str]:
    """What the wheel's links lack: those of `[project.urls]`, and links in the README that an index can follow."""
    with zipfile.ZipFile(wheel) as archive:
        [name] = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        metadata = message_from_bytes(archive.read(name))
    named = dict(link.split(", ", 1) for link in metadata.get_all("Project-URL", []))
    problems = [f"The wheel has no link to its {name}" for name in LINKS if name not in named]
    problems += [f"{link} is of another version" for link in named.values() if "/v" in link and version() not in link]
    relative = re.findall(r"\]\((?!https://|#)([^)]+)\)", str(metadata.get_payload()))
    return problems + [f"The README links to {path}, which no index has" for path in relative]


def try_on(python: str, wheel: Path) -> int:
    """Install the wheel into an empty environment of that Python, and run a task of a new project with it."""
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        subprocess.run([python, "-m", "venv", folder / "empty"], check=True)
        bin = folder / "empty" / "bin"
        project = folder / "project"
        project.mkdir()
        ours = {name: value for name, value in os.environ.items() if not name.startswith(("DJANGO_", "I3TASKS_"))}
        environ = {**ours, "PUBSUB_EMULATOR_HOST": f"127.0.0.1:{free_port()}"}

        def run(program: str, *words: str | Path) -> None:
            done = subprocess.run([bin / program, *words], cwd=project, env=environ, capture_output=True, check=False)
            if done.returncode:
                raise SystemExit(
                    f"{program} {' '.join(map(str, words))}:\n{done.stdout.decode()}{done.stderr.decode()}"
                )

        run("python", "-m", "pip", "install", "--quiet", wheel.resolve())
        for words in HELP:
            run("i3tasks", *words)
        run("django-admin", "startproject", "mysite", ".")
        run("python", "manage.py", "startapp", "shop")
        settings = project / "mysite" / "settings.py"
        settings.write_text(settings.read_text() + '\nINSTALLED_APPS += ["shop"]\n')
        run("i3tasks", "init", "--yes")
        run("python", "manage.py", "check", "--fail-level", "WARNING")
        run("python", "manage.py", "migrate", "--verbosity", "0")
        run("python", "manage.py", "shell", "-c", ENQUEUE)
        run("i3tasks", "run-worker", "--until-empty")
        run("python", "manage.py", "shell", "-c", LOOK)
        print(f"i3tasks {version()} runs a task on {python}.")
        return 0


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


if __name__ == "__main__":
    sys.exit(main())
