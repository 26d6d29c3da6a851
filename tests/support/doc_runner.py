"""Runs the Python blocks of a page, one after the other, as its reader would: they share their names.

What a block is shows in what it defines: settings are applied and checked, `urlpatterns` become the site, tests are
run as tests, sessions (`>>>`) are compared with what they print. Everything else is just run. Then what waits is run,
by a worker where the block waits for results; every try must succeed.
"""

from __future__ import annotations

import ast
import doctest
import inspect
import logging.config
import sys
import unittest
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from types import ModuleType
from typing import Any

from asgiref.sync import async_to_sync
from django.apps import AppConfig
from django.conf import settings
from django.core.checks import ERROR, run_checks
from django.db import ConnectionHandler
from django.test import override_settings
from django.utils.module_loading import import_string

from i3tasks.conf import get_config
from i3tasks.models import TaskExecutionTry
from i3tasks.testing import drain, worker
from tests.support.doc_blocks import Block, Page

SETTINGS = {"DATABASES", "I3TASKS", "INSTALLED_APPS", "LOGGING", "MIDDLEWARE", "PUBSUB_CONFIG", "TASKS", "USE_TZ"}
WAITS = (".result(", ".aresult(", ".arefresh(", ">>>")
Fixtures = Callable[[str], Any]


@dataclass
class Runner:
    """A page that is being run."""

    page: Page
    fixtures: Fixtures  # gives a pytest fixture by name
    given: dict[str, Any]  # the names that the page takes for granted
    kept: ExitStack  # what ends with the page
    module: ModuleType = field(init=False)

    def __post_init__(self) -> None:
        stem = self.page.name.removesuffix(".md").replace("/", "_").replace("-", "_").replace(".", "_")
        self.module = ModuleType(f"shop.{stem}")
        vars(self.module).update(self.given)
        sys.modules[self.module.__name__] = self.module
        self.kept.callback(sys.modules.pop, self.module.__name__)

    def run(self, block: Block) -> None:
        """Run one block. An error names the page and the line."""
        text = _for_this_django(block.text)
        before = set(TaskExecutionTry.objects.values_list("pk", flat=True))
        with worker() if any(sign in text for sign in WAITS) else nullcontext() as running:
            if text.startswith(">>>"):
                self._session(text, block.line)
            else:
                self._code(text, block.line)
            if running is not None:
                running.wait(timeout=120)
        drain()
        failed = TaskExecutionTry.objects.filter(is_success=False, is_completed=True).exclude(pk__in=before)
        if not _tests_of(self.module):
            assert not failed, [(task_try.error_class, str(task_try.task_execution)) for task_try in failed]

    def _code(self, text: str, line: int) -> None:
        known = dict(vars(self.module))
        self._execute(text, line)
        new = {name: value for name, value in vars(self.module).items() if known.get(name) is not value}
        if chosen := {name: value for name, value in new.items() if name in SETTINGS}:
            self._apply(chosen)
        if "urlpatterns" in new:
            self._serve(new["urlpatterns"])
        for value in new.values():
            self._use(value)

    def _execute(self, text: str, line: int) -> None:
        source = "\n" * (line - 1) + text
        flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
        code = compile(source, str(self.page.path), "exec", flags=flags, dont_inherit=True)
        if code.co_flags & inspect.CO_COROUTINE:

            async def run() -> None:
                await eval(code, vars(self.module))

            async_to_sync(run)()
        else:
            exec(code, vars(self.module))

    def _session(self, text: str, line: int) -> None:
        parsed = doctest.DocTestParser().get_doctest(text, vars(self.module), self.page.name, None, line)
        runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS, verbose=False)
        said: list[str] = []
        assert not runner.run(parsed, out=said.append, clear_globs=False).failed, "".join(said)

    # ------------------------------------------------------------------------------------- what a block can define

    def _apply(self, chosen: dict[str, Any]) -> None:
        """The settings hold from here to the page's end, where they can be changed in a process that runs."""
        for name in chosen.pop("INSTALLED_APPS", ()):
            if name is not ...:
                AppConfig.create(name)
        for name in chosen.get("MIDDLEWARE", ()):
            import_string(name)
        if "LOGGING" in chosen:
            self.kept.enter_context(logging_as(chosen.pop("LOGGING")))
        if "DATABASES" in chosen:
            connect(ConnectionHandler(chosen.pop("DATABASES"))["default"])
        self.kept.enter_context(override_settings(**chosen))
        assert get_config().settings is settings.I3TASKS
        errors = [problem for problem in run_checks() if problem.level >= ERROR]
        assert not [problem for problem in errors if str(problem.id).startswith("i3tasks.")], errors

    def _serve(self, patterns: list[Any]) -> None:
        site = ModuleType("shop.served")
        site.urlpatterns = [pattern for pattern in patterns if pattern is not ...]  # type: ignore[attr-defined]
        sys.modules[site.__name__] = site
        self.kept.callback(sys.modules.pop, site.__name__)
        self.kept.enter_context(override_settings(ROOT_URLCONF=site.__name__))
        client = self.fixtures("client")
        assert client.get("/i3/tasks-health/").status_code == 200

    def _use(self, value: Any) -> None:
        if inspect.isclass(value) and issubclass(value, AppConfig) and self._has(value):
            value("shop.of_the_page", sys.modules["shop"]).ready()
        elif inspect.isclass(value) and issubclass(value, unittest.TestCase) and self._has(value):
            result = unittest.TestResult()
            unittest.defaultTestLoader.loadTestsFromTestCase(value).run(result)
            assert result.wasSuccessful(), [*result.errors, *result.failures]
        elif inspect.isfunction(value) and value.__name__.startswith("test_"):
            wanted = inspect.signature(value).parameters
            value(**{name: self.given.get(name) or self.fixtures(name) for name in wanted})

    def _has(self, value: type) -> bool:
        return value.__module__ == self.module.__name__


def _tests_of(module: ModuleType) -> bool:
    return any(name.startswith("test_") for name in vars(module))


def _for_this_django(text: str) -> str:
    """As docs/django-tasks.md says: below Django 6, a package takes the place of `django.tasks`."""
    return text if find_spec("django.tasks") else text.replace("django.tasks", "django_tasks")


def connect(connection: Any) -> None:
    """Open it; of a server that is not here, see that its options are taken."""
    if connection.vendor != "sqlite":
        assert connection.get_connection_params()
        return
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
    connection.close()


@contextmanager
def logging_as(config: dict[str, Any]) -> Iterator[None]:
    """Logging as the page configures it; then as it was. A line must go through it."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        logging.config.dictConfig(config)
        with _errors_raised():
            logging.getLogger("shop").warning("A line of the page's logging.")
        yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)


@contextmanager
def _errors_raised() -> Iterator[None]:
    """A handler that can't format its line raises, rather than to print it."""
    handle = logging.Handler.handleError

    def raising(handler: logging.Handler, record: logging.LogRecord) -> None:
        raise

    logging.Handler.handleError = raising  # type: ignore[method-assign]
    try:
        yield
    finally:
        logging.Handler.handleError = handle  # type: ignore[method-assign]


def silent(function: Callable[..., Any]) -> Callable[..., Any]:
    """What takes the arguments that `function` takes, and does nothing."""
    signature = inspect.signature(function)

    def call(*args: Any, **kwargs: Any) -> None:
        signature.bind(*args, **kwargs)

    return partial(call)
