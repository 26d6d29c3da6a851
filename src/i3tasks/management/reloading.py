"""A supervisor whose processes begin anew when the project's code changes; what they run meanwhile drains."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from .file_watching import project_folders, watching
from .supervising import STEADY_SECONDS, Member, Supervisor, as_exit_code


class ReloadingSupervisor(Supervisor):
    """Runs one process for each member, and the next one of each after every change of the project's Python files.

    The process before drains beside it. One that ends badly soon after its start waits for the next change.
    """

    def __init__(
        self,
        members: Sequence[Member],
        say: Callable[[str], object],
        *,
        liveness_file: Path | None = None,
        folders: Sequence[Path] | None = None,
    ) -> None:
        super().__init__(members, liveness_file=liveness_file)
        self._say = say
        self._folders = project_folders() if folders is None else folders
        self._changed: list[str] = []

    def run(self) -> int:
        with watching(self._folders, self.reload):
            return super().run()

    def reload(self, files: Sequence[str]) -> None:
        """Begin anew because of these files. Safe in any thread."""
        self._changed += files
        self._wake()

    def _look(self) -> bool:
        if self._changed and not self._is_stopping:
            self._say(f"{_named(self._changed)} changed: starting anew.")
            self._changed.clear()
            for member in self._members:
                _replace(member)
        return super()._look()

    def _note_death(self, member: Member, code: int) -> None:
        if time.monotonic() - member.started_at >= STEADY_SECONDS:
            super()._note_death(member, code)
        else:
            ended = f"{member.name} ended with exit code {as_exit_code(code)}, and its output says why."
            self._say(f"{ended} The next change of a Python file starts it again.")


def _replace(member: Member) -> None:
    if member.process is not None:
        with suppress(ProcessLookupError):
            member.process.send_signal(signal.SIGTERM)
        member.leaving.append(member.process)
        member.process = None
    member.deaths, member.start_at = 0, time.monotonic()


def _named(files: Sequence[str]) -> str:
    first, *others = sorted({os.path.relpath(file) for file in files})
    return f"{first} and {len(others)} more" if others else first
