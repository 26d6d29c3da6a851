"""README and docs say what is so: their settings, defaults, links and code."""

import configparser
import dataclasses
import json
import re
import subprocess
import tomllib
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from django.apps import apps

from i3tasks import signals
from i3tasks.broker.outgoing import MAXIMUM_MESSAGE_BYTES
from i3tasks.calls.canvas import LONGEST_DEADLINE
from i3tasks.contrib.prometheus.counters import MOST_VALUES
from i3tasks.core.schedule_fields import LONGEST_NAME, LONGEST_PATH
from i3tasks.core.values import MAXIMUM_DEPTH, MAXIMUM_DIGITS
from i3tasks.emulator import Seed
from i3tasks.store import figures, search, suspects
from i3tasks.store.pauses import ASIDE_FROM
from i3tasks.store.workflows import WRITTEN_AT_ONCE
from i3tasks.telemetry.propagation import LONGEST_TEXT
from i3tasks.types import I3TasksSettings, PullQueue
from tests.benchmarks.__main__ import SETS
from tests.benchmarks.harness.measure import WORKLOADS
from tests.support.doc_blocks import PAGES, ROOT, Block, Page, pages
from tests.support.doc_commands import command_lines, problem

ROW = re.compile(r"^\| `(\w+)` \| `(.+?)` \| (.+) \|$", re.MULTILINE)
LINK = re.compile(r"\]\((?!https?:)([^)#]+)[^)]*\)")
EXTERNAL = re.compile(r"(?:\]\(|<)(https?://[^)>]+)[)>]")
CODE = re.compile(r"^ *```.*?^ *```|`[^`\n]+`", re.MULTILINE | re.DOTALL)
HOSTS = {
    "cloud.google.com",
    "docs.djangoproject.com",
    "docs.celeryq.dev",
    "dramatiq.io",
    "github.com",
    "procrastinate.readthedocs.io",
    "pypi.org",
    "taskiq-python.github.io",
    "www.postgresql.org",
    "www.sqlite.org",
}
"""What external links may lead to."""
KNOWN = {"cd", "curl", "django-admin", "docker", "export", "gcloud", "i3tasks", "mkdir", "pip", "python", "python3"}
KNOWN |= {".", ".ci/run", ".venv/bin/pip", "kubectl", "nox", "terraform", "uvicorn"}
"""The programs that blocks of shell call."""


def relative(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def test_every_setting_is_documented_with_its_default() -> None:
    text = (ROOT / "docs" / "reference" / "settings.md").read_text(encoding="utf-8")
    text = text[text.index("## Queues") :]

    documented = {name: eval(default, {"PullQueue": PullQueue}) for name, default, _ in ROW.findall(text)}

    assert documented == {field.name: field.default for field in dataclasses.fields(I3TasksSettings)}


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_links_lead_somewhere(page: Path) -> None:
    dead = [link for link in LINK.findall(page.read_text(encoding="utf-8")) if not (page.parent / link).exists()]

    assert not dead


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_commands_take_the_options_that_pages_show(page: Path) -> None:
    wrong = {
        line: said for line in command_lines(page) if not is_of_the_example(line, page) and (said := problem(line))
    }

    assert not wrong


def is_of_the_example(line: str, page: Path) -> bool:
    """Whether `manage.py` is asked for a command that the example has beside the page."""
    _, asked, name = [*line.split()[:3], "", ""][:3]
    return asked == "manage.py" and any(page.parent.glob(f"*/management/commands/{name}.py"))


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_what_pages_run_of_this_repository_is_there(page: Path) -> None:
    """Its modules, files, sessions of nox, and the contestants and workloads of the benchmarks."""
    text = page.read_text(encoding="utf-8")
    sessions = re.findall(r"^def (\w+)\(session", (ROOT / "noxfile.py").read_text(encoding="utf-8"), re.MULTILINE)

    missing = [name for name in re.findall(r"python -m (tests[\w.]*\w)", text) if find_spec(name) is None]
    files = re.findall(r"(?:python3?|pytest)(?: -n 0)? ((?:tests|examples)/[\w/.]+\w)", text)
    missing += [path for path in files if not (ROOT / path).exists()]
    missing += [name for name in re.findall(r"nox -s (\w+)", text) if name not in sessions]
    for given in re.findall(r"--workloads ([\w:,]+)", text):
        missing += [name for name in given.split(",") if name not in WORKLOADS]
    for given in re.findall(r"--contestants ([\w:,]+)", text):
        missing += [name for name in given.split(",") if not is_contestant(name)]
    assert not missing


def is_contestant(name: str) -> bool:
    """Whether it is a set, or a contestant of one in a variant whose words its module explains."""
    if name in SETS or name in SETS["all"]:
        return True
    contestant, _, variant = name.partition(":")
    explained = import_module(f"tests.benchmarks.contestants.{contestant}").__doc__ or ""
    words = [re.sub(r"(?<=[a-z])\d+$", "N", word) for word in variant.split("_")]
    return all(word and re.search(rf"\b{word}\b", explained) for word in words)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("i3tasks run-worker --concurency 3", "unrecognized"),
        ("i3tasks run-workers", "no command"),
        ("python manage.py i3tasks_clean --days", "expected one argument"),
        ("i3tasks emulator --host-port 8085 &", "options are wrong"),
        ("i3tasks status $ID --json  # one", ""),
    ],
)
def test_a_command_that_rots_is_found(line: str, said: str) -> None:
    assert said in problem(line)
    assert bool(problem(line)) is bool(said)


def test_data_in_the_pages_can_be_read() -> None:
    """Python, shell and what is printed have tests of their own: test_samples.py and test_doc_outputs.py."""
    read = {"json": json.loads, "toml": seeds, "ini": unit, "yaml": workflow, "sql": tables_are_ours}
    kinds = {"python", "sh", "console", "text", "", "{eval-rst}", "{toctree}", *read}
    for page in pages():
        for block in page.blocks:
            assert block.kind in kinds, f"{page.name}: nothing tests a block of {block.kind}"
            read.get(block.kind, str)(block.text)


def seeds(text: str) -> None:
    assert Seed.from_content(tomllib.loads(text)).subscriptions


def unit(text: str) -> None:
    """A unit of systemd; what it starts is a command that there is."""
    parser = configparser.ConfigParser(interpolation=None)
    parser.read_string(text)
    started = parser["Service"]["ExecStart"]
    assert not problem(started[started.index("i3tasks ") :])


def workflow(text: str) -> None:
    """Of GitHub's."""
    yaml = pytest.importorskip("yaml", reason="PyYAML comes with the extra dev")
    for job in yaml.safe_load(text)["jobs"].values():
        for step in job["steps"]:
            assert set(step) <= {"uses", "run", "with", "name"}
            assert "i3tasks" not in step.get("run", ""), "such a command belongs into a block of sh, which is parsed"


def tables_are_ours(text: str) -> None:
    ours = {model._meta.db_table for model in apps.get_app_config("i3tasks").get_models()}
    assert set(re.findall(r"\bTABLE (\w+)", text)) <= ours


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
def test_shell_blocks_are_shell_and_call_what_is_known(page: Page) -> None:
    for block in page.of("sh", "console"):
        lines = [line.removeprefix("$ ") for line in block.text.splitlines()]
        text = "\n".join(lines) if block.kind == "sh" else "\n".join(commands_of(block))
        subprocess.run(["bash", "-n"], input=text, text=True, check=True)
        for line in text.replace("\\\n", " ").splitlines():
            words = [word for word in line.split() if not re.fullmatch(r"[A-Z_0-9]+=\S*", word)]
            assert not words or words[0] in KNOWN or words[0].startswith("#"), f"{page.name}: {line}"


def commands_of(block: Block) -> list[str]:
    return [line[2:] for line in block.text.splitlines() if line.startswith("$ ")]


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_external_links_have_the_form_of_links_that_last(page: Path) -> None:
    """Nothing is visited here: `nox -s links` does, before a release."""
    text = CODE.sub("", page.read_text(encoding="utf-8"))
    for link in EXTERNAL.findall(text):
        parts = urlsplit(link)
        if parts.hostname == "127.0.0.1":
            continue
        assert parts.scheme == "https", link
        assert parts.hostname in HOSTS, f"{link}: is the host meant? Then name it in HOSTS."
        if parts.hostname == "docs.djangoproject.com":
            assert parts.path.startswith("/en/stable/"), f"{link}: a version's pages go away"
        if parts.hostname == "www.postgresql.org":
            assert parts.path.startswith("/docs/current/"), f"{link}: a version's pages go away"
        if parts.hostname == "github.com":
            assert not re.search("/blob/(main|master)/", parts.path), f"{link}: name a tag"


def test_the_limits_are_those_of_the_code() -> None:
    text = (ROOT / "docs" / "reference" / "limits.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| ([^|]+?) \| ([^|]+?) \|", text, re.MULTILINE))
    settings = I3TasksSettings()
    limits = {
        "arguments of a call, as JSON": settings.maximum_payload_bytes,
        "a result, as JSON": settings.maximum_payload_bytes,
        "nesting of arguments and results": MAXIMUM_DEPTH,
        "an int": MAXIMUM_DIGITS,
        "name of a task's module, and of its function": LONGEST_PATH,
        "name of a schedule": LONGEST_NAME,
        "`run_after`, `until`, `reschedule`": ASIDE_FROM.year,
        "deadline of a group": LONGEST_DEADLINE.days,
        "a propagated header, or text of the log context": LONGEST_TEXT,
        "text of an error, and its traceback": settings.error_message_characters,
        "tries at a time": settings.concurrency,
        "plain functions at a time": settings.threads,
        "ORM calls of coroutines at a time": settings.database_lanes,
        "suspects at a time": suspects.MOST_TOGETHER,
        "members of a group that are written with the step before": WRITTEN_AT_ONCE,
        "signals that wait for slow receivers": signals.MOST_WAITING,
        "values of a label in metrics": MOST_VALUES,
        "rows that a list counts": search.MOST_COUNTED,
        "rows that are looked at where no index helps": search.MOST_LOOKED_AT,
        "tries of a state that gauges and `i3tasks queues` count": figures.MOST_COUNTED,
        "a message": f"{MAXIMUM_MESSAGE_BYTES // 1_000_000} MB",
    }

    wrong = {what: rows[what] for what, limit in limits.items() if spelt(limit) not in rows[what]}
    assert not wrong


def spelt(limit: int | str) -> str:
    return str(limit) if limit == ASIDE_FROM.year or isinstance(limit, str) else f"{limit:,}"


def test_the_extras_that_pages_install_are_there() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for page in PAGES:
        for extras in re.findall(r"(?:i3tasks|the/clone)\[([\w,]+)\]", page.read_text(encoding="utf-8")):
            assert set(extras.split(",")) <= set(project["optional-dependencies"]), relative(page)


def test_the_readme_has_exactly_two_commands_that_set_up() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")

    assert re.findall(r"^python3 .*$", readme, re.MULTILINE) == [
        "python3 examples/census/run.py",
        "python3 tests/run.py",
    ]
