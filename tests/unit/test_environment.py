"""examples/environment.py: what it says when it can't help, and when it installs again."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

FILE = Path(__file__).resolve().parents[2] / "examples" / "environment.py"


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module, with a clone of its own to look at and every command it runs only noted down."""
    spec = importlib.util.spec_from_file_location("environment_under_test", FILE)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    (tmp_path / "pyproject.toml").write_text("one")
    monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setenv("I3TASKS_VENV", str(tmp_path / "env"))
    ran: list[list[str]] = []

    def run(command: list[Any]) -> Any:
        ran.append([str(part) for part in command])
        if "venv" in ran[-1]:
            module.python_of(tmp_path / "env").parent.mkdir(parents=True)
            module.python_of(tmp_path / "env").touch()
        return type("Completed", (), {"returncode": 0, "stdout": ""})

    monkeypatch.setattr(module, "_run", run)
    module.ran = ran  # type: ignore[attr-defined]
    return module


def installs(environment: ModuleType) -> list[str]:
    return [command[-1].partition("[")[2] for command in environment.ran if "install" in command]


def test_an_environment_is_made_and_filled_once(environment: ModuleType) -> None:
    environment.ensure("example")
    environment.ensure("example")

    assert installs(environment) == ["example,web]"]
    assert sum("venv" in command for command in environment.ran) == 1


def test_a_changed_project_file_is_installed_again(environment: ModuleType) -> None:
    environment.ensure("example")
    (environment.ROOT / "pyproject.toml").write_text("two")
    environment.ensure("example")

    assert len(installs(environment)) == 2


def test_what_the_tests_installed_serves_the_example_too(environment: ModuleType) -> None:
    environment.ensure("test")
    environment.ensure("example", "postgres")

    assert len(installs(environment)) == 1


def test_without_ensurepip_the_running_pythons_pip_serves_the_environment(
    environment: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment, "_has", lambda module: module == "pip")

    environment.ensure("example")

    [made] = [command for command in environment.ran if "venv" in command]
    assert "--without-pip" in made


def test_without_any_pip_it_says_what_to_install(environment: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "_has", lambda module: False)

    with pytest.raises(SystemExit, match="apt install python3-venv"):
        environment.ensure("example")


def test_an_old_python_is_told_so(environment: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 10, 4))

    with pytest.raises(SystemExit, match=r"needs Python 3\.11 or newer, and this is 3\.10\.4"):
        environment.ensure("example")
