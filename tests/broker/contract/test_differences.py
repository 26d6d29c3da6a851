"""The documented table of differences is the one that the suite goes by."""

from __future__ import annotations

import re
from pathlib import Path

from tests.broker.contract.differences import DIFFERENCES

ROOT = Path(__file__).parents[3]


def test_the_docs_name_every_difference() -> None:
    page = (ROOT / "docs" / "reference" / "emulator.md").read_text(encoding="utf-8")
    rows = {row.strip() for row in re.findall(r"^\| (.+?) \|$", page, re.MULTILINE)}
    assert set(DIFFERENCES.values()) <= rows


def test_every_difference_has_a_case() -> None:
    tests = "".join(path.read_text(encoding="utf-8") for path in Path(__file__).parent.glob("test_*.py"))
    named = set(re.findall(r'differs\("([^"]+)"\)', tests))
    assert named == set(DIFFERENCES)
