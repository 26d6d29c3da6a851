"""Makes calls, ready to be written, of a task's arguments."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..core.values import JSON
from ..exceptions import ArgumentError
from ..registry import TaskSpec
from ..store.enqueue import NewExecution
from ..store.keys import Key, argument_key, caller_key
from .arguments import argument_problem, encoded
from .common import Common
from .options import A_DAY, CallOptions
from .travelling import take_along


def calls_of(common: Common, arguments: Iterable[tuple[Sequence[Any], Mapping[str, Any]]]) -> list[NewExecution]:
    """A call with each of these arguments. Raises ArgumentError."""
    spec, options = common.spec, common.options
    is_keyed, is_deferred = common.is_keyed, options.is_deferred
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
            queue_name=common.queue_name,
            run_after=options.instant() if is_deferred else None,
            priority=common.priority,
            options=common.in_row,
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
