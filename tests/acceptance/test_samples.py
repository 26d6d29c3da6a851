"""Every block of code in README and docs is run, parsed or compared; one that can't be says why, in the page."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import structlog
from django.test import override_settings

from i3tasks import registry, signals
from i3tasks.telemetry import bus
from i3tasks.testing import nothing_published
from i3tasks.types import I3TasksSettings, PullQueue
from tests.support.doc_blocks import ROOT, Page, pages
from tests.support.doc_runner import Runner, silent

FOLLOWED = {"README.md": "test_readme.py", "docs/tutorial.md": "test_tutorial.py"}
"""Pages whose Python is run by a test of their own."""
NOT_RUN_AT_MOST = 3


def python_pages() -> list[Page]:
    return [page for page in pages() if page.of("python") and page.name not in FOLLOWED]


@pytest.fixture
def reader(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[ExitStack]:
    """The reader's project, and everything that samples may leave behind in this process set back."""
    monkeypatch.syspath_prepend(str(ROOT / "tests" / "reader"))
    ours = {name: spec for name, spec in registry.lookup._tasks.items() if name[0].startswith("i3tasks.")}
    monkeypatch.setattr(registry.lookup, "_tasks", ours)
    monkeypatch.setattr(bus, "_listeners", dict(bus._listeners))
    monkeypatch.setenv("PUBSUB_EMULATOR_HOST", "set back when the test ends, whatever a sample has set")
    monkeypatch.delenv("PUBSUB_EMULATOR_HOST")
    for signal in vars(signals).values():
        if isinstance(signal, signals.TaskSignal):
            monkeypatch.setattr(signal, "receivers", [])
            monkeypatch.setattr(signal, "_unsubscribe", None)
    replace_what_would_report_elsewhere(monkeypatch)
    configured = structlog.get_config() if structlog.is_configured() else None
    queues = (PullQueue("mail", "worker"), PullQueue("heavy", "worker"))
    chosen = I3TasksSettings(namespace="shop", default_queue=PullQueue("default", "worker"), other_queues=queues)
    backends = {"default": {"BACKEND": "i3tasks.backend.PubSubBackend", "QUEUES": []}}
    of_reader = override_settings(I3TASKS=chosen, ROOT_URLCONF="shop.urls", TASKS=backends)
    with of_reader, nothing_published(), ExitStack() as kept:
        yield kept
    structlog.reset_defaults() if configured is None else structlog.configure(**configured)
    for name in [name for name in sys.modules if name == "shop" or name.startswith("shop.")]:
        del sys.modules[name]


def replace_what_would_report_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Called with the arguments that the pages give, which are checked; they have tests of their own."""
    import sentry_sdk

    from i3tasks.contrib import otel, sentry

    for module, name in ((sentry_sdk, "init"), (otel, "instrument"), (sentry, "instrument")):
        monkeypatch.setattr(module, name, silent(getattr(module, name)))


@pytest.mark.parametrize("page", python_pages(), ids=lambda page: page.name)
@pytest.mark.filterwarnings("ignore:.*will not have a default mailer")
@pytest.mark.django_db(transaction=True)
def test_the_python_of_a_page_runs(
    page: Page, reader: ExitStack, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    from shop import given, tasks

    own = {name: value for name, value in vars(tasks).items() if getattr(value, "spec", None)}
    names = {**own, **given.EVERYWHERE, **given.ON_PAGE.get(page.name, {}), "BASE_DIR": tmp_path}
    running = Runner(page, request.getfixturevalue, names, reader)
    for block in page.of("python"):
        try:
            running.run(block)
        except BaseException as error:
            error.add_note(f"{page.name}:{block.line}")
            raise


def test_pages_with_a_test_of_their_own_have_it() -> None:
    for name, test in FOLLOWED.items():
        assert Path(name).name in (ROOT / "tests" / "acceptance" / test).read_text(encoding="utf-8")


def test_few_blocks_are_not_run_and_each_says_why() -> None:
    reasons = [block.not_run for page in pages() for block in page.blocks if block.not_run]

    assert len(reasons) <= NOT_RUN_AT_MOST
    assert all(len(reason.split()) > 3 for reason in reasons)
