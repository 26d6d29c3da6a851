"""Notices that Python files have changed, by looking at them: needs no package, and works on mounted folders too."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from django.apps import apps

LOOK_EVERY_SECONDS = 0.5
MOST_OF_A_CORE = 0.05
"""The greatest part of a core that looking may take: a large project is looked at less often."""
SETTLE_SECONDS = 0.1
PASSED_BY = {"__pycache__", "node_modules", "site-packages", "dist-packages", "build", "dist"}

Files = dict[str, tuple[int, int]]


def project_folders() -> list[Path]:
    """The current folder, and those of installed apps that are elsewhere, but not among installed packages."""
    here = Path.cwd()
    found = {here}
    for config in apps.get_app_configs():
        folder = Path(config.path).resolve()
        if not folder.is_relative_to(here) and not PASSED_BY & set(folder.parts) and not _is_of_python(folder):
            found.add(folder)
    return sorted(found)


@contextmanager
def watching(folders: Iterable[Path], changed: Callable[[list[str]], object]) -> Iterator[None]:
    """Call `changed` with the files that were changed, made or deleted, from a thread, while the block lasts.

    Files that change together are reported in one call. Tests, hidden folders, virtual environments and caches are
    ignored.
    """
    ending = threading.Event()
    watch = _Watch(list(folders), changed, ending)  # looks at once: changes from now on are reported
    thread = threading.Thread(target=watch.run, name="i3tasks-watch", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ending.set()
        thread.join()


class _Watch:
    def __init__(self, folders: list[Path], changed: Callable[[list[str]], object], ending: threading.Event) -> None:
        self._folders = folders
        self._changed = changed
        self._ending = ending
        self._known = self._look()
        self._pause = LOOK_EVERY_SECONDS

    def run(self) -> None:
        while not self._ending.wait(self._pause):
            began = time.monotonic()
            files = self._look()
            self._pause = max(LOOK_EVERY_SECONDS, (time.monotonic() - began) / MOST_OF_A_CORE)
            if files != self._known:
                self._tell(files)

    def _tell(self, files: Files) -> None:
        before, seen = self._known, files
        while not self._ending.wait(SETTLE_SECONDS) and (again := self._look()) != seen:
            seen = again  # an editor, or a change of branch, is still writing
        self._known = seen
        differing = {name for name, _ in before.items() ^ seen.items()}
        if differing and not self._ending.is_set():
            self._changed(sorted(differing))

    def _look(self) -> Files:
        return {name: stamp for folder in self._folders for name, stamp in _python_files(str(folder))}


def _python_files(folder: str) -> Iterator[tuple[str, tuple[int, int]]]:
    """Each Python file below the folder, with its time and size."""
    try:
        entries = list(os.scandir(folder))
    except OSError:  # deleted meanwhile, or not ours to read
        return
    if any(entry.name == "pyvenv.cfg" for entry in entries):
        return
    for entry in entries:
        try:
            if entry.is_dir(follow_symlinks=False):
                if not entry.name.startswith(".") and entry.name not in PASSED_BY:
                    yield from _python_files(entry.path)
            elif entry.name.endswith(".py") and not _is_test(entry.name):
                status = entry.stat()
                yield entry.path, (status.st_mtime_ns, status.st_size)
        except OSError:
            continue


def _is_test(name: str) -> bool:
    """Whether only tests import it."""
    return name in ("tests.py", "conftest.py") or name.startswith("test_")


def _is_of_python(folder: Path) -> bool:
    return any(folder.is_relative_to(Path(prefix).resolve()) for prefix in {sys.prefix, sys.base_prefix} - {"/usr"})
