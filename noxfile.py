"""`nox` runs the checks one by one; `.ci/run` is the whole of them. `nox -s tests-3.13` runs one session."""

import os
import shutil
import subprocess

import nox

nox.options.default_venv_backend = "venv"
nox.options.error_on_missing_interpreters = False
nox.options.sessions = ["tests", "lint", "types", "floors", "wheel", "spelling", "docs"]

# What people read, and the spelling check with them.
WRITTEN = ("src", "docs", "README.md", "tests", "examples", "noxfile.py", "pyproject.toml", ".ci")
PAIRS = [("3.11", "5.2"), ("3.12", "6.0"), ("3.13", "6.1"), ("3.14", "6.1")]


@nox.session
@nox.parametrize("python,django", PAIRS, ids=[python for python, _ in PAIRS])
def tests(session: nox.Session, django: str) -> None:
    """The suite on SQLite, then what touches the database on PostgreSQL."""
    session.install("-e", ".[test]", f"django~={django}.0")
    session.run("pytest", *session.posargs)
    suites = (
        "tests/store",
        "tests/engine",
        "tests/backend",
        "tests/http",
        "tests/board",
        "tests/testing",
        "tests/faults",
    )
    session.run("pytest", "--db", "postgres", *suites, *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Style and likely bugs, by ruff."""
    session.install("ruff~=0.17.0")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def types(session: nox.Session) -> None:
    """Types, by mypy --strict and pyright."""
    session.install("-e", ".[dev]")
    session.run("mypy", "--strict")
    session.run("pyright", "--pythonpath", shutil.which("python", path=session.bin) or "python")


@nox.session
def audit(session: nox.Session) -> None:
    """Known vulnerabilities of what users install. Needs the network; run before a release, not by `.ci/run`."""
    session.install(".[postgres,web]", "pip-audit~=2.9")
    session.run("pip-audit", "--local", "--skip-editable", *session.posargs)


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
def spelling(session: nox.Session) -> None:
    """Spelling of what people read."""
    session.install("codespell~=2.4.1")
    session.run("codespell", *WRITTEN)


@nox.session
def pictures(session: nox.Session) -> None:
    """Take the pictures of the board for the documentation, as the browser's tests go by."""
    session.install("-e", ".[test]")
    session.run("pytest", "-n", "0", "tests/browser", *session.posargs, env={"I3TASKS_BOARD_PICTURES": "docs"})


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation with warnings as errors, into build/docs; then test what README and docs say."""
    session.install("-e", ".[docs,test]")
    session.run("sphinx-build", "-W", "--keep-going", "-q", "-E", "-b", "html", "docs", "build/docs")
    tests = [f"tests/acceptance/test_{name}.py" for name in ("docs", "samples", "doc_outputs")]
    session.run("pytest", *tests, "tests/unit/test_reference.py", *session.posargs)


@nox.session
def image(session: nox.Session) -> None:
    """Run the steps of the shop's image without containers, in an empty environment."""
    session.run("python", "-m", "tests.image")


@nox.session
def helpers(session: nox.Session) -> None:
    """The tests of `i3tasks.testing` in the order of the files, in random orders, and in several processes."""
    session.install("-e", ".[test]", "pytest-randomly>=3.16")
    for options in (["-p", "no:randomly"], [], ["-n", "2"], ["--db", "postgres"]):
        session.run("pytest", "tests/testing", *options, *session.posargs)


@nox.session
def upgrade(session: nox.Session) -> None:
    """Upgrade a project from versions of django-i3tasks of the package index. `.ci/run` does so from the last one."""
    session.install("-e", ".[test]")
    session.run("python", "-m", "tests.upgrade", *session.posargs)


@nox.session
def links(session: nox.Session) -> None:
    """Visit each external link of the documentation. Needs the network; run before a release, not by `.ci/run`."""
    session.install("-e", ".[docs]")
    session.run("sphinx-build", "-q", "-E", "-b", "linkcheck", "docs", "build/links", *session.posargs)


@nox.session
@nox.parametrize("python,django", PAIRS, ids=[python for python, _ in PAIRS])
def explore(session: nox.Session, django: str) -> None:
    """Look for new examples, with random seeds, for two minutes (I3TASKS_EXPLORE_SECONDS)."""
    session.install("-e", ".[test]", f"django~={django}.0")
    session.run("python", "-m", "tests.explore")


@nox.session
def soak(session: nox.Session) -> None:
    """Ten minutes of faults under load, on both databases; memory, threads and connections stay flat. Outside CI."""
    session.install("-e", ".[test]")
    environment = {"I3TASKS_SOAK_SECONDS": os.environ.get("I3TASKS_SOAK_SECONDS", "600")}
    for database in ("sqlite", "postgres"):
        session.run("pytest", "--db", database, "-s", "tests/faults/test_soak.py", *session.posargs, env=environment)


@nox.session
def bench(session: nox.Session) -> None:
    """Measure i3tasks beside its peers: `nox -s bench -- --contestants ours,procrastinate --workloads drain,io`."""
    session.install("-e", ".[test]", "uvicorn[standard]")  # as peers that are pushed to have it
    session.run("python", "-m", "tests.benchmarks", *session.posargs)


@nox.session
def release(session: nox.Session) -> None:
    """Build sdist and wheel into dist/, look into them, and test the wheel in empty environments. Uploads nothing.

    `nox -s release -- https://github.com/OWNER/i3tasks` gives them the public address that an upload needs.
    """
    session.install("build", "twine")
    shutil.rmtree("dist", ignore_errors=True)
    tree = "."
    if session.posargs:
        tree = os.path.join(session.create_tmp(), "tree")
        shutil.rmtree(tree, ignore_errors=True)
        session.run("python", "-m", "tests.addresses", tree, *session.posargs)
    session.run("python", "-m", "build", "--outdir", "dist", tree)
    session.run("twine", "check", "--strict", "dist/*.whl", "dist/*.tar.gz")
    session.run("python", "-m", "tests.release", "dist", *(["--to-upload"] if session.posargs else []))
    for python in dict.fromkeys(python for python, _ in PAIRS):
        command = shutil.which(f"python{python}")
        if command and not subprocess.run([command, "-c", ""], capture_output=True, check=False).returncode:
            session.run("python", "-m", "tests.release", "dist", "--try-on", command)
        else:
            session.warn(f"Python {python} is not here.")
