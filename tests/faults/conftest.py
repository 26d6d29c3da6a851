"""A world to break: emulators, workers and web processes of their own, and what must be so at the end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults.world import EITHER, World
from tests.support.google_emulator import GoogleEmulator


@pytest.fixture
def world(tmp_path: Path, settings: Any) -> Iterator[World]:
    """On the embedded emulator, which keeps its messages in a folder."""
    with World(settings, tmp_path / "emulator").open() as world:
        yield world


@pytest.fixture
def quick_world(tmp_path: Path, settings: Any) -> Iterator[World]:
    """The same with leases as short as can be, for tests without load."""
    quick = {"lease_seconds": 1, "heartbeat_seconds": 0.3, "publish_grace_seconds": 1, "lost_after_seconds": 2}
    with World(settings, tmp_path / "emulator").open(**quick) as world:
        yield world


@pytest.fixture(params=["embedded", pytest.param("google", marks=pytest.mark.google)])
def either_world(request: pytest.FixtureRequest, settings: Any, tmp_path: Path) -> Iterator[World]:
    """On the embedded emulator, and on Google's, which other tests use, too."""
    google = request.getfixturevalue("google_emulator") if request.param == "google" else None
    with World(settings, tmp_path / "emulator").open(google and google.host_port) as world:
        yield world


@pytest.fixture(params=EITHER)
def breakable_world(request: pytest.FixtureRequest, settings: Any, tmp_path: Path) -> Iterator[World]:
    """The same, on an emulator that no other test uses."""
    google = None
    if request.param == "google":
        request.getfixturevalue("google_emulator")  # skips, or fails, where it is missing
        google = GoogleEmulator()
    with World(settings, tmp_path / "emulator", google).open() as world:
        yield world
