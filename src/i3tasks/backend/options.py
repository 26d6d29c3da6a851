"""OPTIONS of the backend in TASKS, checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import timedelta
from typing import Any

from ..conf import WrongSettings
from ..core.retry import RetryPolicy
from ..registry import TaskOptions, option_problems
from .framework import InvalidTaskBackend


class WrongOptions(WrongSettings, InvalidTaskBackend):
    """OPTIONS that the backend does not take."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendOptions:
    """The keys that OPTIONS may hold.

    queues                     queue names of tasks, and the queues of I3TASKS that they stand for
    max_retries, retry, timeout  for tasks that have none of their own; None: as I3TASKS says
    enqueue_on_commit          accepted, and needless: a call is part of its caller's transaction and is lost with it
    """

    queues: Mapping[str, str] = field(default_factory=dict)
    max_retries: int | None = None
    retry: RetryPolicy | None = None
    timeout: float | timedelta | None = None
    enqueue_on_commit: bool = True

    @classmethod
    def read(cls, alias: str, options: Any) -> BackendOptions:
        """OPTIONS of TASKS[alias]. Raises WrongOptions with a sentence for what is wrong."""
        try:
            found = cls(**(options or {}))
        except TypeError:
            names = ", ".join(each.name for each in fields(cls))
            raise WrongOptions(f"OPTIONS of TASKS[{alias!r}] takes {names}, not {options!r:.200}.") from None
        for problem in found._problems():
            raise WrongOptions(f"In OPTIONS of TASKS[{alias!r}], {problem}.")
        return found

    def _problems(self) -> list[str]:
        timeout = seconds(self.timeout)
        problems = list(option_problems(TaskOptions(max_retries=self.max_retries, retry=self.retry, timeout=timeout)))
        queues: Any = self.queues
        on_commit: Any = self.enqueue_on_commit
        if not isinstance(queues, Mapping) or not all(
            isinstance(name, str) for pair in queues.items() for name in pair
        ):
            problems.append(f"queues must be a dict of queue names, not {queues!r:.80}")
        if not isinstance(on_commit, bool):
            problems.append(f"enqueue_on_commit must be True or False, not {on_commit!r:.80}")
        return problems


NO_OPTIONS = BackendOptions()


def seconds(timeout: float | timedelta | None) -> float | None:
    """A timeout as i3tasks has it."""
    return timeout.total_seconds() if isinstance(timeout, timedelta) else timeout
