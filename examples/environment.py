"""The virtual environment of the README's two commands. It is made if it is missing, and kept if it works.

This module uses the standard library only, because it runs before anything is installed, under any `python3`.

    I3TASKS_VENV   another folder than .venv, for environments of several Pythons side by side
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
OLDEST = (3, 11)

# Extra of pyproject.toml -> the extras that it includes.
INCLUDED = {"test": {"test", "example", "postgres", "web"}, "example": {"example", "web"}}


def ensure(*extras: str) -> Path:
    """Make sure of an environment with i3tasks, installed from this clone, and these extras. Returns its Python."""
    if sys.version_info < OLDEST:
        this = ".".join(map(str, sys.version_info[:3]))
        raise SystemExit(
            f"i3tasks needs Python 3.11 or newer, and this is {this}: run the command with a newer Python."
        )
    folder = Path(os.environ.get("I3TASKS_VENV") or ROOT / ".venv").absolute()
    python = python_of(folder)
    wanted = set().union(*(INCLUDED.get(extra, {extra}) for extra in extras))
    if not _works(python):
        print(f"Making an environment in {_short(folder)} ...", file=sys.stderr, flush=True)
        _make(folder)
    if not _installed(folder, wanted):
        print(
            f"Installing i3tasks and what it needs in {_short(folder)}; once, a minute or so ...",
            file=sys.stderr,
            flush=True,
        )
        _install(folder, wanted)
    return python


def python_of(folder: Path) -> Path:
    return folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def clean_environ() -> dict[str, str]:
    """Give this process's environment variables, without those that change where another Python finds its modules."""
    return {
        name: value
        for name, value in os.environ.items()
        if name not in {"PYTHONHOME", "PYTHONPATH", "__PYVENV_LAUNCHER__"}
    }


def _works(python: Path) -> bool:
    question = f"import sys; sys.exit(sys.version_info < {OLDEST})"
    return python.exists() and _run([python, "-c", question]).returncode == 0


def _make(folder: Path) -> None:
    """Make a virtual environment, without a pip of its own if Debian's python3-venv is missing (see `_pip`)."""
    without_pip = [] if _has("ensurepip") else ["--without-pip"]
    if without_pip and not _has("pip"):
        raise SystemExit(
            "This Python has neither ensurepip nor pip, so it can make no environment. "
            "Install them (on Debian and Ubuntu: apt install python3-venv), then run the command again."
        )
    made = _run([sys.executable, "-m", "venv", "--clear", *without_pip, folder])
    if made.returncode:
        raise SystemExit(f"{made.stdout}\nMaking the environment {folder} failed; the reason stands above.")


def _install(folder: Path, extras: set[str]) -> None:
    target = f"{ROOT}[{','.join(sorted(extras))}]"
    installed = _run([*_pip(folder), "install", "--quiet", "--disable-pip-version-check", "--editable", target])
    if installed.returncode:
        raise SystemExit(f"{installed.stdout}\nInstalling i3tasks failed; pip's own words stand above.")
    stamp = {"of": _digest(), "extras": sorted(extras)}
    _stamp(folder).write_text(json.dumps(stamp), encoding="utf-8")


def _pip(folder: Path) -> list[str | Path]:
    python = python_of(folder)
    if _run([python, "-m", "pip", "--version"]).returncode == 0:
        return [python, "-m", "pip"]
    if _has("pip"):
        return [sys.executable, "-m", "pip", "--python", python]
    raise SystemExit(f"The environment {folder} has no pip. Remove the folder, then run the command again.")


def _installed(folder: Path, extras: set[str]) -> bool:
    try:
        stamp = json.loads(_stamp(folder).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return stamp["of"] == _digest() and extras <= set(stamp["extras"])


def _digest() -> str:
    """Compute a digest that changes with pyproject.toml and with the clone's path."""
    content = (ROOT / "pyproject.toml").read_bytes() + os.fsencode(ROOT)
    return hashlib.sha256(content).hexdigest()


def _stamp(folder: Path) -> Path:
    return folder / "i3tasks-installed.json"


def _has(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def _run(command: list[str | Path]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(part) for part in command],
        env=clean_environ(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


def _short(folder: Path) -> Path:
    return folder.relative_to(ROOT) if folder.is_relative_to(ROOT) else folder
