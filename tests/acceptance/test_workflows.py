"""The example of workflows, run as its page says."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_every_kind_of_workflow_comes_to_its_end() -> None:
    page = (ROOT / "docs" / "workflows.md").read_text(encoding="utf-8")
    named = re.search(r"`python3 (examples/workflows/run\.py)`", page)
    assert named is not None
    done = subprocess.run(
        [sys.executable, named[1]], cwd=ROOT, capture_output=True, text=True, timeout=180, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    said = dict(re.findall(r"^  (\S+) +(.*)$", done.stdout, re.MULTILINE))
    assert said["group"] == "all measured, 8 members"
    assert re.fullmatch(r"\{('\w+': \d+(, )?){3}\}", said["map-reduce"])
    assert re.fullmatch(r"\d+ modules, listed", said["then"])
    assert said["cron"] == "the clock struck"
    assert set(said) == {"chain", "group", "map-reduce", "then", "otherwise", "cron"}
