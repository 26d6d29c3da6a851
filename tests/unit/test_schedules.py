"""`Schedule` in I3TASKS: its fields, what it is known by, and what is refused."""

import re
from pathlib import Path
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured

from i3tasks.types import I3TasksSettings, Schedule

DOCS = Path(__file__).resolve().parents[2] / "docs" / "schedules.md"
FIELDS = {"module_name": "shop.tasks", "func_name": "add", "cron": "@daily"}


def schedule(**changes: Any) -> Schedule:
    return Schedule(**{**FIELDS, **changes})


def test_it_unpacks_to_the_five_documented_fields() -> None:
    module_name, func_name, cron, args, kwargs = Schedule("shop.tasks", "add", "0 3 * * *", [1], {"b": 2})
    assert (module_name, func_name, cron, args, kwargs) == ("shop.tasks", "add", "0 3 * * *", [1], {"b": 2})
    assert list(schedule()) == ["shop.tasks", "add", "@daily", [], {}]


def test_a_name_is_what_it_is_known_by() -> None:
    assert schedule(name="nightly").key == schedule(name="nightly", cron="@hourly").key == "nightly"


@pytest.mark.parametrize(
    "change",
    [
        {"func_name": "other"},
        {"cron": "@hourly"},
        {"args": [1]},
        {"kwargs": {"a": 1}},
        {"time_zone": "UTC"},
        {"queue_name": "heavy"},
    ],
)
def test_without_a_name_what_it_runs_and_when_is(change: dict[str, Any]) -> None:
    assert schedule().key == schedule().key
    assert schedule().key != schedule(**change).key


@pytest.mark.parametrize("change", [{"enabled": False}, {"catch_up": "all"}])
def test_switching_it_off_makes_no_other_of_it(change: dict[str, Any]) -> None:
    assert schedule().key == schedule(**change).key


def test_the_longest_names_make_a_key_that_fits_its_column() -> None:
    assert len(schedule(module_name="m" * 256, func_name="f" * 256).key) <= 255


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"cron": "61 * * * *"}, "cron of the schedule 'shop.tasks.add': The minute"),
        ({"cron": "61 * * * *", "name": "nightly"}, "cron of the schedule 'nightly'"),
        ({"time_zone": "Mars/Phobos"}, "time_zone of .*no time zone 'Mars/Phobos'"),
        ({"args": "text"}, "args of .*must be a list"),
        ({"args": [object()]}, r"args of .*args\[0\] is a builtins.object"),
        ({"kwargs": {"when": 1j}}, r"kwargs of .*kwargs\['when'\]"),
        ({"kwargs": []}, "kwargs of .*must be a dict"),
        ({"catch_up": "some"}, "catch_up of .*'latest', 'all', 'none'"),
        ({"enabled": "yes"}, "enabled of .*True or False"),
        ({"name": ""}, "name of .*1 to 200"),
        ({"queue_name": 7}, "queue_name of .*must be text"),
        ({"func_name": None}, "func_name of .*must be text"),
        ({"crn": "@daily"}, "no setting 'crn'. Did you mean 'cron'"),
    ],
)
def test_the_offending_field_is_named(change: dict[str, Any], said: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=said):
        schedule(**change)


@pytest.mark.parametrize("pair", [(schedule(), schedule()), (schedule(name="a"), schedule(name="a", cron="@hourly"))])
def test_two_that_could_not_be_told_apart_are_refused(pair: tuple[Schedule, Schedule]) -> None:
    with pytest.raises(ImproperlyConfigured, match="Give each a name of its own"):
        I3TasksSettings(schedules=pair)


def test_the_documented_settings_are_valid() -> None:
    (sample, *_) = re.findall(r"```python\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    names: dict[str, Any] = {}
    exec(sample, names)
    assert [item.name for item in names["I3TASKS"].schedules] == ["report", None, None]
