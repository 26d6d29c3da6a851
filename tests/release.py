"""Looks at what a release would upload: `python tests/release.py dist`. `--try-on PYTHON` installs and runs it."""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tarfile
import tempfile
import zipfile
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
TRIED = """
import i3tasks, os, subprocess, sys
bin = os.path.dirname(sys.executable)
for words in (["--version"], ["--help"], ["run-worker", "--help"], ["emulator", "--help"], ["doctor", "--help"]):
    subprocess.run([os.path.join(bin, "i3tasks"), *words], check=True, stdout=subprocess.DEVNULL)
print("i3tasks", i3tasks.__version__, "on Python", sys.version.split()[0])
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--try-on", metavar="PYTHON")
    options = parser.parse_args()
    [wheel] = options.folder.glob("*.whl")
    if options.try_on:
        return try_on(options.try_on, wheel)
    [sdist] = options.folder.glob("*.tar.gz")
    problems = [*versions(wheel, sdist), *contents(wheel, sdist)]
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


def try_on(python: str, wheel: Path) -> int:
    """Install the wheel into an empty environment of that Python, and use it there."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([python, "-m", "venv", f"{folder}/empty"], check=True)
        inside = f"{folder}/empty/bin/python"
        subprocess.run([inside, "-m", "pip", "install", "--quiet", str(wheel.resolve())], check=True)
        return subprocess.run([inside, "-c", TRIED], cwd=folder, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
