"""Upgrades a project from each version of django-i3tasks: `python -m tests.upgrade [--version V] [--db sqlite]`.

The project in `project/` runs with the old version: it migrates, makes calls of every kind, and runs some of them. Then
`i3tasks doctor --fix` renames what it has to, `migrate` brings the tables up to date, and the new worker runs what the
old one left. At last old and new processes work side by side on one database and one subscription, both ways.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from i3tasks.emulator import EmulatorProcess

from .world import Old, World, databases

VERSIONS = ("0.0.27", "0.1.1", "0.1.9")
NEEDED_BY_OLD = ("djangorestframework", "requests", "croniter>=2.0.1")
ROUND = 11
"""The executions of a round: five calls, a chain of two, a group of two with its callback, and one that fails once."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--version", action="append", choices=VERSIONS)
    parser.add_argument("--db", choices=("sqlite", "postgres"), help="default: both")
    options = parser.parse_args()
    versions, began = options.version or VERSIONS, time.monotonic()
    with tempfile.TemporaryDirectory() as folder, EmulatorProcess() as emulator, databases(options.db) as made:
        old = install(Path(folder), versions)
        cases = [
            World(Path(folder) / f"{kind}-{version}", old[version], database(f"shop_{number}"), emulator.host_port)
            for number, version in enumerate(versions)
            for kind, database in made.items()
        ]
        with ThreadPoolExecutor(3) as pool:
            problems = [problem for problem in pool.map(upgraded, cases) if problem]
    print("\n".join(problems) or f"All upgrades went well, in {time.monotonic() - began:.0f} s.")
    return 1 if problems else 0


def install(folder: Path, versions: tuple[str, ...]) -> dict[str, Old]:
    """Each version in a folder of its own, without i3tasks' own requirements, which are here already."""
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--target"]
    subprocess.run([*pip, str(folder / "needed"), *NEEDED_BY_OLD], check=True)
    found = {}
    for version in versions:
        target = folder / f"django-i3tasks-{version}"
        subprocess.run([*pip, str(target), f"django-i3tasks=={version}"], check=True)
        found[version] = Old(version, (target, folder / "needed"))
    return found


def upgraded(world: World) -> str:
    """Why the upgrade did not go well; "" if it did."""
    try:
        with world:
            before_the_upgrade(world)
            the_upgrade(world)
            if world.old_ones_can_insert:
                side_by_side(world)
    except Exception as error:
        return f"--- {world.name}\n{type(error).__name__}: {error}\n{world.outputs()}"
    print(f"{world.name}: upgraded{'' if world.old_ones_can_insert else ', not side by side'}", flush=True)
    return ""


def before_the_upgrade(world: World) -> None:
    world.old("migrate")
    world.enqueue_old()
    with world.old_worker():
        world.until_succeeded(ROUND)
    world.enqueue_old()


def the_upgrade(world: World) -> None:
    kept = world.rows()
    world.swap()
    world.new("check")
    world.new("migrate")
    assert [row for row in world.rows() if row in kept] == kept, "rows are not what they were"
    with world.new_worker():
        world.until_succeeded(2 * ROUND)


def side_by_side(world: World) -> None:
    world.enqueue_new()
    with world.old_worker():
        world.until_succeeded(3 * ROUND)
    world.enqueue_old()
    with world.new_worker():
        world.until_succeeded(4 * ROUND)
    with world.old_worker(), world.new_worker():
        world.enqueue_new()
        world.enqueue_old()
        world.until_succeeded(6 * ROUND)
    world.new("health")


if __name__ == "__main__":
    sys.exit(main())
