"""The README's example, run."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from i3tasks import registry
from i3tasks.testing import advance, drain
from tests.acceptance.conftest import ROOT

BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


@pytest.fixture
def example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The code that calls; its tasks are a module of an app, as the README says."""
    tasks, calls = BLOCK.findall((ROOT / "README.md").read_text(encoding="utf-8"))
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "tasks.py").write_text(tasks, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(registry.lookup, "_tasks", dict(registry.lookup._tasks))
    import_module("shop.tasks")
    yield calls
    del sys.modules["shop.tasks"], sys.modules["shop"]


@pytest.mark.django_db
def test_the_example_runs_as_it_is_written(example: str) -> None:
    names: dict[str, Any] = {}
    exec(example, names)
    assert all(task_try.is_success for task_try in drain())

    assert names["receipt"].result() == "receipt 7 to ada@example.com"
    assert names["filed"].result() == 1
    advance(names["timedelta"](hours=1))
    assert len(drain()) == 1, "the one that waited for an hour"
