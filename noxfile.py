"""`nox` runs the checks one by one; `.ci/run` is the whole of them. `nox -s tests-3.13` runs one session."""

import os
import shutil

import nox

nox.options.default_venv_backend = "venv"
nox.options.error_on_missing_interpreters = False
nox.options.sessions = ["tests", "lint", "types", "floors", "wheel", "docs"]

PAIRS = [("3.11", "5.2"), ("3.12", "6.0"), ("3.13", "6.1"), ("3.14", "6.1")]


@nox.session
@nox.parametrize("python,django", PAIRS, ids=[python for python, _ in PAIRS])
def tests(session: nox.Session, django: str) -> None:
    """The suite on SQLite, then what touches the database on PostgreSQL."""
    session.install("-e", ".[test]", f"django~={django}.0")
    session.run("pytest", *session.posargs)
    suites = ("tests/store", "tests/engine", "tests/http", "tests/faults")
    session.run("pytest", "--db", "postgres", *suites, *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    session.install("ruff~=0.17.0")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def types(session: nox.Session) -> None:
    session.install("-e", ".[dev]")
    session.run("mypy", "--strict")
    session.run("pyright", "--pythonpath", shutil.which("python", path=session.bin) or "python")


@nox.session
def floors(session: nox.Session) -> None:
    """Imports go down only."""
    session.install("-e", ".", "import-linter>=2.1")
    session.run("lint-imports", "--no-logo")


@nox.session
def wheel(session: nox.Session) -> None:
    """The wheel, in an environment that holds nothing else."""
    folder = session.create_tmp()
    session.install("build")
    session.run("python", "-m", "build", "--wheel", "--outdir", folder)
    session.run("python", "-m", "venv", "--clear", f"{folder}/empty")
    python = shutil.which("python", path=f"{folder}/empty/bin:{folder}/empty/Scripts") or "python"
    session.run(python, "-m", "pip", "install", "--quiet", "--find-links", folder, "i3tasks", external=True)
    session.run(python, "-c", "import i3tasks; print(i3tasks.__version__)", external=True)


@nox.session
def docs(session: nox.Session) -> None:
    """What README and docs say: their commands, code and links."""
    session.install("-e", ".[test]")
    session.run("pytest", "tests/acceptance/test_docs.py", *session.posargs)


@nox.session
def soak(session: nox.Session) -> None:
    """Ten minutes of faults under load, on both databases; memory, threads and connections stay flat. Outside CI."""
    session.install("-e", ".[test]")
    environment = {"I3TASKS_SOAK_SECONDS": os.environ.get("I3TASKS_SOAK_SECONDS", "600")}
    for database in ("sqlite", "postgres"):
        session.run("pytest", "--db", database, "-s", "tests/faults/test_soak.py", *session.posargs, env=environment)
