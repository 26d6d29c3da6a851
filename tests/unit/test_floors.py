"""The house keeps its floors: what may import what, checked on the source itself."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "i3tasks"

GROUND = {"core", "exceptions"}

# Outside packages that only some modules of i3tasks may import, also inside functions.
CONFINED = {
    "google": {"broker", "emulator"},
    "grpc": {"broker", "emulator"},
    "croniter": {"core"},
    "structlog": {"telemetry"},
    "uvicorn": {"cli", "management"},
    "prometheus_client": {"contrib"},
    "sentry_sdk": {"contrib"},
    "opentelemetry": {"contrib"},
}


def imports(path: Path) -> Iterator[str]:
    """The full name of everything that a file imports, at whatever depth of the code."""
    package = ("i3tasks", *path.relative_to(PACKAGE).parent.parts)
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            yield from (".".join(filter(None, [*base, node.module, alias.name])) for alias in node.names)


def sources(*places: str) -> list[Path]:
    return [
        path
        for path in sorted(PACKAGE.rglob("*.py"))
        if not places or path.relative_to(PACKAGE).with_suffix("").parts[0] in places
    ]


def place_of(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def test_imports_go_down_only() -> None:
    # A process of its own, because import-linter disables every logger that there is.
    linter = [sys.executable, "-c", "from importlinter.cli import lint_imports; exit(lint_imports(no_cache=True))"]
    done = subprocess.run(linter, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_store_is_told_the_time() -> None:
    asking = [
        f"{path.relative_to(PACKAGE)}: {name}"
        for path in sources("store")
        for name in imports(path)
        if name in {"i3tasks.core.clock.current_clock", "i3tasks.core.clock.SYSTEM_CLOCK"}
    ]
    assert asking == [], "store functions take `now`: the floors above ask the clock"


@pytest.mark.parametrize("package", CONFINED)
def test_outside_packages_stay_where_they_belong(package: str) -> None:
    allowed = CONFINED[package]

    strays = {
        f"{path.relative_to(ROOT)} imports {name}"
        for path in sources()
        for name in imports(path)
        if name.split(".")[0] == package and place_of(path) not in allowed
    }

    assert not strays


def test_the_ground_floor_knows_no_django() -> None:
    strays = {
        f"{path.relative_to(ROOT)} imports {name}"
        for path in sources(*GROUND)
        for name in imports(path)
        if name.split(".")[0] in {"django", "asgiref"}
    }

    assert not strays


def test_the_emulator_stands_on_the_ground_floor() -> None:
    allowed = {f"i3tasks.{name}" for name in GROUND | {"emulator"}}

    strays = {
        f"{path.relative_to(ROOT)} imports {name}"
        for path in sources("emulator")
        for name in imports(path)
        if name.split(".")[0] == "django"
        or (name.startswith("i3tasks.") and ".".join(name.split(".")[:2]) not in allowed)
    }

    assert not strays


def test_the_front_shows_the_plan_and_nothing_else() -> None:
    folders = {
        "admin",
        "backend",
        "broker",
        "calls",
        "checks",
        "contrib",
        "core",
        "dashboard",
        "emulator",
        "engine",
        "management",
        "migrations",
        "models",
        "registry",
        "store",
        "telemetry",
        "templatetags",
        "testing",
        "threads",
        "types",
        "views",
    }
    files = {
        "__init__.py",
        "__main__.py",
        "apps.py",
        "cli.py",
        "conf.py",
        "exceptions.py",
        "maintenance.py",
        "metadata.py",
        "py.typed",
        "signals.py",
        "tasks.py",
        "urls.py",
        "utils.py",
    }

    front = {path.name for path in PACKAGE.iterdir() if path.is_file() or any(path.rglob("*.py"))}

    assert front == folders | files, "A new name at the front is a new room of the house: say so in the design first."
