"""What the calls and steps of a task that are made with the same options have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from ..conf import Config, get_config
from ..registry import TaskSpec, require_discoverable
from .options import CallOptions


class Common(NamedTuple):
    """What is looked up once for a task and its options, and holds for as long as `config` is the configuration."""

    config: Config
    spec: TaskSpec
    options: CallOptions
    queue_name: str | None
    priority: int
    in_row: Mapping[str, Any]
    """The options that a call's row keeps."""
    in_step: Mapping[str, Any]
    """The options that a workflow's step keeps. The task's own are looked up when it begins, so that a plain step has
    none."""

    @property
    def is_keyed(self) -> bool:
        """Whether each call has a key."""
        return self.options.idempotency_key is not None or self.spec.options.unique


def common_of(spec: TaskSpec, options: CallOptions) -> Common:
    """Raises UnknownQueueError, UnknownTaskError."""
    require_discoverable(spec)
    in_row = options.in_row()
    in_step = {"queue_name": options.queue_name, "priority": options.priority, "options": in_row or None}
    return Common(
        config=get_config(),
        spec=spec,
        options=options,
        queue_name=spec.queue_name(options.queue_name),
        priority=spec.options.priority if options.priority is None else options.priority,
        in_row=in_row,
        in_step={name: value for name, value in in_step.items() if value is not None},
    )
