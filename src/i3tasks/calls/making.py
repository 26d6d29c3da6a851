"""Makes calls, ready to be written, of a task's arguments."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from ..conf import Config, get_config
from ..core.values import JSON
from ..exceptions import ArgumentError
from ..registry import TaskSpec, require_discoverable
from ..store.enqueue import NewExecution
from ..store.keys import Key, argument_key, caller_key
from .arguments import argument_problem, encoded
from .options import A_DAY, CallOptions
from .travelling import take_along


class Common(NamedTuple):
    """What the calls of a task that are made with the same options have in common, looked up once."""

    config: Config
    """It is so for as long as this is the configuration."""
    spec: TaskSpec
    options: CallOptions
    queue_name: str | None
    priority: int
    in_row: Mapping[str, Any]
    is_keyed: bool


def common_of(spec: TaskSpec, options: CallOptions) -> Common:
    """Raises UnknownQueueError, UnknownTaskError."""
    require_discoverable(spec)
    return Common(
        config=get_config(),
        spec=spec,
        options=options,
        queue_name=spec.queue_name(options.queue_name),
        priority=spec.options.priority if options.priority is None else options.priority,
        in_row=options.in_row(),
        is_keyed=options.idempotency_key is not None or spec.options.unique,
    )


def calls_of(common: Common, arguments: Iterable[tuple[Sequence[Any], Mapping[str, Any]]]) -> list[NewExecution]:
    """A call with each of these arguments. Raises ArgumentError."""
    _, spec, options, queue_name, priority, in_row, is_keyed = common
    calls: list[NewExecution] = []
    for args, kwargs in arguments:
        if found := argument_problem(spec, args, kwargs):
            raise ArgumentError(found)
        encoded_args, encoded_kwargs, task_group_id = encoded(args, kwargs)
        call = NewExecution(
            module_name=spec.module_name,
            func_name=spec.func_name,
            args=encoded_args,
            kwargs=encoded_kwargs,
            queue_name=queue_name,
            run_after=options.instant() if options.is_deferred else None,
            priority=priority,
            options=in_row,
            chain=spec.options.on_success,
            task_group_id=task_group_id,
            key=_key(spec, options, encoded_args, encoded_kwargs) if is_keyed else None,
        )
        calls.append(call)
    take_along(calls)
    return calls


def _key(spec: TaskSpec, options: CallOptions, args: Sequence[JSON], kwargs: Mapping[str, JSON]) -> Key:
    if options.idempotency_key is not None:
        return caller_key(spec, options.idempotency_key, options.idempotency_period or A_DAY)
    return argument_key(spec, args, kwargs)
