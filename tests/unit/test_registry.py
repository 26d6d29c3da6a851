"""A task is what a worker can find again by its name; nothing else becomes one, and nothing unregistered is run."""

import functools
import importlib
import sys
import textwrap
import types
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.apps import apps
from django.test import override_settings

from i3tasks import registry, task
from i3tasks.core.retry import RetryPolicy
from i3tasks.exceptions import ArgumentError, TaskDefinitionError, UnknownTaskError
from i3tasks.registry import TaskOptions, find, load, policy_of, register
from i3tasks.types import I3TasksSettings
from tests.shop import tasks as shop

Module = Callable[..., types.ModuleType]


@pytest.fixture(autouse=True)
def own_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry.lookup, "_tasks", dict(registry.lookup._tasks))


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Module]:
    """Writes a module that can be imported and gives it, imported."""
    monkeypatch.syspath_prepend(tmp_path)
    made: list[str] = []

    def make(name: str, code: str) -> types.ModuleType:
        file = tmp_path.joinpath(*name.split(".")).with_suffix(".py")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"from i3tasks import task\n{textwrap.dedent(code)}")
        importlib.invalidate_caches()
        made.append(name)
        return importlib.import_module(name)

    yield make
    for name in made:
        sys.modules.pop(name, None)


def at_top_level() -> None: ...


def yields() -> Iterator[int]:
    yield 1


async def ayields() -> Any:
    yield 1


class Plain:
    def method(self) -> None: ...

    @staticmethod
    def static() -> None: ...


def nested() -> Callable[[], None]:
    def inner() -> None: ...

    return inner


REFUSED: list[tuple[str, Any, str]] = [
    ("a nested function", nested(), "nested.<locals>.inner is not at the top level of its module"),
    ("a lambda", lambda: None, "not at the top level"),
    ("a method", Plain.method, "Plain.method is not at the top level"),
    ("a static method", Plain.static, "Plain.static is not at the top level"),
    ("a class", Plain, "decorates a function, not <class"),
    ("an instance", Plain(), "decorates a function, not"),
    ("a generator", yields, "yields is a generator, which can't be a task. Return a list"),
    ("an async generator", ayields, "ayields is a generator"),
    ("a partial", functools.partial(at_top_level), "decorates a function, not functools.partial"),
    ("a built-in", len, "decorates a function, not <built-in"),
    ("a task", shop.add, "decorates a function, not <task tests.shop.tasks.add>"),
]


@pytest.mark.parametrize(("thing", "sentence"), [pytest.param(*rest, id=name) for name, *rest in REFUSED])
def test_what_no_worker_could_find_is_refused_at_definition(thing: Any, sentence: str) -> None:
    before = dict(registry.lookup._tasks)
    for decorate in (task, task(bind=True)):
        with pytest.raises(TaskDefinitionError, match=sentence):
            decorate(thing)
    assert registry.lookup._tasks == before


def test_the_script_that_is_run_holds_no_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    function = types.FunctionType(at_top_level.__code__, {"__name__": "__main__"}, "at_top_level")
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", None)
    with pytest.raises(TaskDefinitionError, match="can't be defined in the script that is run"):
        task(function)


def test_python_m_knows_the_scripts_importable_name(monkeypatch: pytest.MonkeyPatch) -> None:
    function = types.FunctionType(at_top_level.__code__, {"__name__": "__main__"}, "at_top_level")
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", types.SimpleNamespace(name="shop.jobs"))
    assert register(function, TaskOptions()).path == "shop.jobs.at_top_level"


def test_a_name_that_fits_no_column_is_refused() -> None:
    function = types.FunctionType(at_top_level.__code__, {"__name__": "m" * 257}, "at_top_level")
    with pytest.raises(TaskDefinitionError, match="longer than 256 characters"):
        task(function)


def test_the_same_name_from_another_file_is_refused_naming_both_places(module: Module) -> None:
    module("one", "@task\ndef work(): ...")
    with pytest.raises(TaskDefinitionError, match=r"two different tasks named one\.work: .*one\.py:2, .*other\.py:3"):
        module("other", "__name__ = 'one'\n@task\ndef work(): ...")
    assert find("one", "work").function.__code__.co_filename.endswith("one.py")  # type: ignore[union-attr]


def test_a_reload_is_fine_and_the_newer_function_runs(module: Module) -> None:
    loaded = module("again", "@task\ndef work(): return 1")
    Path(str(loaded.__file__)).write_text("from i3tasks import task\n\n@task\ndef work(): return 'new'")
    importlib.invalidate_caches()
    importlib.reload(loaded)
    assert load("again", "work").function() == "new"


WRONG_OPTIONS: list[tuple[dict[str, Any], str]] = [
    ({"max_retry": 1}, "@task has no option 'max_retry'. Did you mean 'max_retries'"),
    ({"queue": "mail"}, "no option 'queue'. Did you mean 'queue_name'"),
    ({"rate_limit": 1}, "no option 'rate_limit'. It takes bind, queue_name, max_retries"),
    ({"max_retries": -1}, "max_retries must be a whole number of 0 or more, not -1"),
    ({"max_retries": "3"}, "max_retries must be a whole number"),
    ({"max_retries": 1.5}, "max_retries must be a whole number"),
    ({"timeout": 0}, "timeout must be a number of seconds above 0, not 0"),
    ({"timeout": -1}, "timeout must be"),
    ({"timeout": float("nan")}, "timeout must be"),
    ({"timeout": float("inf")}, "timeout must be"),
    ({"timeout": "1"}, "timeout must be"),
    ({"priority": 101}, "priority must be a whole number from -100 to 100, not 101"),
    ({"priority": 0.5}, "priority must be"),
    ({"retry": 3}, "retry must be a RetryPolicy, not 3"),
    ({"isolation": "fork"}, "isolation must be 'thread' or 'process', not 'fork'"),
    ({"unique": "no"}, "unique must be True or False, not 'no'"),
    ({"run_once": 1}, "run_once must be True or False, not 1"),
    ({"bind": "yes"}, "bind must be True or False, not 'yes'"),
    ({"queue_name": ""}, "queue_name must be text that is not empty, not ''"),
    ({"queue_name": 5}, "queue_name must be text"),
    ({"topic_name": ""}, "topic_name must be text"),
    ({"run_once": True, "max_retries": 4}, "run_once has no further try: leave max_retries and retry out"),
    ({"run_once": True, "retry": RetryPolicy()}, "run_once has no further try"),
]


@pytest.mark.parametrize(("options", "sentence"), WRONG_OPTIONS, ids=[str(options) for options, _ in WRONG_OPTIONS])
def test_an_option_that_makes_no_sense_is_refused_at_definition(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(TaskDefinitionError, match=sentence):
        task(**options)(at_top_level)


WRONG_CALLS: list[dict[str, Any]] = [
    {"max_retries": -1},
    {"timeout": 0},
    {"priority": 1000},
    {"retry": 3},
    {"queue_name": ""},
    {"run_after": True},
    {"until": False},
    {"idempotency_key": ""},
    {"idempotency_key": 7},
    {"idempotency_period": timedelta(0), "idempotency_key": "x"},
]


@pytest.mark.parametrize("options", WRONG_CALLS, ids=str)
def test_an_option_that_makes_no_sense_is_refused_at_the_call(options: dict[str, Any]) -> None:
    with pytest.raises(ArgumentError, match=f"{next(iter(options))} must be"):
        shop.add.using(**options)


def test_none_stands_for_an_option_that_is_not_given(own_registry: None) -> None:
    options = dict.fromkeys(registry.TaskOptions.__match_args__)
    assert task(**options)(at_top_level).spec.options == TaskOptions()  # type: ignore[call-overload]


def test_a_call_that_is_to_run_before_it_may_is_refused() -> None:
    with pytest.raises(ArgumentError, match=r"until, .*, lies before run_after"):
        shop.add.using(run_after=60, until=30)
    shop.add.using(run_after=-60, until=-90)  # both have passed: it runs at once


def test_load_finds_what_is_registered_under_old_names_too(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load("tests.shop.tasks", "add").function(1, 2) == 3
    monkeypatch.setitem(registry.RENAMED_MODULES, "old_shop.tasks", "tests.shop.tasks")
    assert load("old_shop.tasks", "add") is find("tests.shop.tasks", "add")
    assert registry.RENAMED_MODULES["django_i3tasks.tasks"] == "i3tasks.tasks"


def installed_app(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    apps_now = [*apps.get_app_configs(), types.SimpleNamespace(name=name)]
    monkeypatch.setattr(apps, "get_app_configs", lambda: apps_now)


def test_load_imports_a_module_of_an_installed_app_and_no_other(
    module: Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("bakery", "bakerystreet"):
        module(f"{name}.jobs", f"import sys\nsys.imported_by_test = '{name}'\n@task\ndef work(): ...")
        del sys.modules[f"{name}.jobs"]
        registry.lookup._tasks.pop((f"{name}.jobs", "work"))
    installed_app(monkeypatch, "bakery")
    assert load("bakery.jobs", "work").path == "bakery.jobs.work"
    monkeypatch.delattr(sys, "imported_by_test")
    with pytest.raises(UnknownTaskError, match=r"No task bakerystreet\.jobs\.work is registered"):
        load("bakerystreet.jobs", "work")
    assert not hasattr(sys, "imported_by_test"), "a prefix of the text is no prefix of the path"


def test_a_renamed_module_is_imported_under_its_new_name(module: Module, monkeypatch: pytest.MonkeyPatch) -> None:
    module("bakery.jobs", "@task\ndef work(): ...")
    del sys.modules["bakery.jobs"]
    registry.lookup._tasks.pop(("bakery.jobs", "work"))
    installed_app(monkeypatch, "bakery")
    monkeypatch.setitem(registry.RENAMED_MODULES, "django_bakery.jobs", "bakery.jobs")
    assert load("django_bakery.jobs", "work").path == "bakery.jobs.work"


@pytest.mark.parametrize(
    "name", ["", ".", "os", "os.path", "tests.shop", "tests.shop.", "tests.shop..tasks", "a b\x00"]
)
def test_a_name_that_is_no_task_is_unknown_and_nothing_worse(name: str) -> None:
    with pytest.raises(UnknownTaskError):
        load(name, "system")


def test_only_tasks_of_a_module_run_not_its_other_functions() -> None:
    with pytest.raises(UnknownTaskError):
        load("tests.shop.tasks", "task")


@pytest.mark.parametrize("code", ["import no_such_thing", "1/0", "raise SystemExit(3)"])
def test_a_module_that_fails_to_import_makes_its_task_unknown(
    module: Module, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    with pytest.raises((Exception, SystemExit)):
        module("bakery.broken", code)
    installed_app(monkeypatch, "bakery")
    with pytest.raises(UnknownTaskError, match=r"module bakery\.broken of a stored task can't be imported"):
        load("bakery.broken", "work")


def test_discover_imports_tasks_of_apps_and_the_modules_of_the_settings(
    module: Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("bakery.tasks", "jobs.nightly"):
        module(name, "@task\ndef work(): ...")
        del sys.modules[name]
        registry.lookup._tasks.pop((name, "work"))
    installed_app(monkeypatch, "bakery")
    with override_settings(I3TASKS=I3TasksSettings(task_modules=("jobs.nightly",))):
        registry.discover()
    assert find("bakery.tasks", "work")
    assert find("jobs.nightly", "work")


def test_discover_passes_over_an_app_that_is_a_single_file(module: Module, monkeypatch: pytest.MonkeyPatch) -> None:
    module("kiosk", "")
    installed_app(monkeypatch, "kiosk")
    registry.discover()


def test_an_error_in_a_tasks_module_is_the_projects_own(module: Module, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModuleNotFoundError):
        module("bakery.tasks", "import no_such_thing")
    installed_app(monkeypatch, "bakery")
    with pytest.raises(ModuleNotFoundError, match="no_such_thing"):
        registry.discover()


def test_the_row_overrides_the_task_and_the_task_overrides_the_settings() -> None:
    own = RetryPolicy(max_retries=7, base_seconds=1)
    with_policy = register(at_top_level, TaskOptions(retry=own, timeout=5))
    with override_settings(I3TASKS=I3TasksSettings(default_max_retries=9, default_timeout_seconds=20)):
        assert with_policy.policy({}) == own
        assert with_policy.policy({"max_retries": 0}).max_retries == 0
        assert with_policy.policy({"max_retries": 0}).base_seconds == 1
        assert (with_policy.timeout({}), with_policy.timeout({"timeout": 2})) == (5, 2)
        assert policy_of("no.such", "task", {}).max_retries == 9
        plain = register(at_top_level, TaskOptions())
        assert (plain.policy({}).max_retries, plain.timeout({})) == (9, 20)
        assert register(at_top_level, TaskOptions(max_retries=2)).policy({}).max_retries == 2


def test_a_calls_policy_is_a_whole_one() -> None:
    limited = register(at_top_level, TaskOptions(max_retries=2))
    of_call = RetryPolicy(max_retries=7).as_json()
    assert limited.policy({"retry": of_call}).max_retries == 7
    assert limited.policy({"retry": of_call, "max_retries": 5}).max_retries == 5


def test_what_runs_once_does_so_whatever_a_call_says() -> None:
    once = register(at_top_level, TaskOptions(run_once=True))
    assert once.policy({}).max_retries == 0
    assert once.policy({"retry": RetryPolicy().as_json(), "max_retries": 5}).max_retries == 0


async def acoroutine() -> None: ...


def test_a_coroutine_function_in_a_process_is_refused() -> None:
    with pytest.raises(TaskDefinitionError, match="runs in the event loop"):
        task(isolation="process")(acoroutine)


@pytest.mark.parametrize(
    "stored", [{"max_retries": -1}, {"max_retries": "x"}, {"max_retries": [1]}, {"retry": {"no": 1}}, {"retry": 5}]
)
def test_a_row_with_broken_options_gets_the_tasks_own_policy(stored: dict[str, Any]) -> None:
    """Else that row would fail every attempt to end its try, in the worker and in every dispatcher."""
    assert policy_of("tests.shop.tasks", "fail", stored) == policy_of("tests.shop.tasks", "fail", {})
