"""A browser, the site that it visits, and a worker: each one for all tests of the module."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import uuid4

import pytest
from django.core.management import call_command
from django.db import connections
from django.test.utils import override_settings
from pytest_django.plugin import DjangoDbBlocker

from tests.support.children import Children, free_port, listens
from tests.support.rigs import until

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

T = TypeVar("T")
OPTIONS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    "--disable-background-networking",
)
PICTURES = os.environ.get("I3TASKS_BOARD_PICTURES", "")
"""A folder: the pictures of docs/ are put there, each at its place."""
DOCS = Path(__file__).parents[2] / "docs"


@dataclass
class Site:
    """The site, and a page of the browser on which a member of staff is signed in."""

    address: str
    browser: Browser
    page: Page
    database: ThreadPoolExecutor
    complaints: list[str] = field(default_factory=list)
    """Errors on the browser's console, those of the content policy among them."""

    def rows(self, do: Callable[[], T]) -> T:
        """What `do` gives. It may use the database, for which Django wants a thread without a loop."""
        return self.database.submit(do).result(60)

    def open(self, path: str = "") -> Page:
        self.page.goto(f"{self.address}/i3/board/{path}")
        return self.page

    def picture(self, name: str) -> None:
        """Keep a picture of the page, as far as it is seen without much scrolling."""
        assert (DOCS / f"{name}.png").exists() or PICTURES, "take it by `nox -s pictures`, and show it on a page"
        if PICTURES:
            size = self.page.viewport_size
            assert size
            height = min(self.page.evaluate("document.documentElement.scrollHeight"), 1100)
            clip = {"x": 0, "y": 0, "width": size["width"], "height": height}
            self.page.screenshot(path=Path(PICTURES) / f"{name}.png", full_page=True, clip=clip)


@pytest.fixture
def db(django_db_setup: None) -> None:
    """In the place of pytest-django's: the test database is made, and no transaction hides what a test writes."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        reason = "no Chromium is installed (apt-get install chromium)"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=list(OPTIONS), chromium_sandbox=False)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def site(browser: Browser, embedded: str, django_db_setup: None, django_db_blocker: DjangoDbBlocker) -> Iterator[Site]:
    from django.conf import settings

    pubsub = {"EMULATOR": True, "HOST": embedded, "PROJECT_ID": f"test-{uuid4().hex[:10]}"}
    ours = {"task_modules": ["tests.browser.photos"], "heartbeat_seconds": 1.5}
    changes = {**ours, "task_modules": ("tests.browser.photos",)}
    database = ThreadPoolExecutor(1)
    children = Children(pubsub, **ours)
    port = free_port()
    with (
        django_db_blocker.unblock(),
        override_settings(PUBSUB_CONFIG=pubsub, I3TASKS=replace(settings.I3TASKS, **changes)),
        children.all_ended(),
    ):
        web = children.start(
            *("-m", "uvicorn", "tests.browser.site:application", "--port", str(port), "--log-level", "warning")
        )
        database.submit(_member_of_staff).result(60)
        children.worker("--concurrency", "8")
        until(lambda: listens(port) or web.process.poll() is not None, what=lambda: web.output)
        context = browser.new_context(viewport={"width": 1280, "height": 800}, reduced_motion="reduce")
        context.set_default_timeout(20_000)
        visited = Site(f"http://127.0.0.1:{port}", browser, context.new_page(), database)
        _sign_in(visited)
        visited.page.on("console", lambda said: visited.complaints.append(said.text) if said.type == "error" else None)
        visited.page.on("pageerror", lambda error: visited.complaints.append(str(error)))
        yield visited
        context.close()
    with django_db_blocker.unblock():
        database.submit(_empty).result(60)
    database.shutdown()


def _member_of_staff() -> None:
    from django.contrib.auth.models import User

    User.objects.create_superuser("ann", password="secret")


def _sign_in(site: Site) -> None:
    page = site.open()
    page.fill("#id_username", "ann")
    page.fill("#id_password", "secret")
    page.click("[type=submit]")
    page.wait_for_url(f"{site.address}/i3/board/")


def _empty() -> Any:
    call_command("flush", interactive=False, verbosity=0)
    connections.close_all()
