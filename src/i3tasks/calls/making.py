"""Makes calls, ready to be written, of a task's arguments."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..conf import get_config
from ..core.values import JSON, encode_arguments
from ..exceptions import ArgumentError
from ..models import TaskGroup
from ..registry import TaskSpec, require_discoverable
from .options import A_DAY, CallOptions
from .travelling import take_along

if TYPE_CHECKING:
    from ..store.enqueue import NewExecution
    from ..store.keys import Key

GROUP_KEYWORD = "__i3group__"


def calls_of(
    spec: TaskSpec, options: CallOptions, arguments: Iterable[tuple[Sequence[Any], Mapping[str, Any]]]
) -> list[NewExecution]:
    """A call of the task with each of these arguments. What they have in common is looked up once.

    Raises ArgumentError, UnknownQueueError, UnknownTaskError.
    """
    from ..store.enqueue import NewExecution

    require_discoverable(spec)
    queue_name, in_row = spec.queue_name(options.queue_name), options.in_row()
    is_keyed = options.idempotency_key is not None or spec.options.unique
    priority = spec.options.priority if options.priority is None else options.priority
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


def argument_problem(spec: TaskSpec, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
    """Why the task does not take these arguments, in a sentence; "" if it does."""
    if GROUP_KEYWORD in kwargs:
        kwargs = {name: kwargs[name] for name in kwargs if name != GROUP_KEYWORD}
    return spec.argument_problem(args, kwargs)


def encoded(
    args: Sequence[Any], kwargs: Mapping[str, Any], *, of_step: bool = False
) -> tuple[list[JSON], dict[str, JSON], int | None]:
    """The arguments as JSON data, and the id of the group that the call is to join. Raises ArgumentError."""
    task_group_id = None
    if GROUP_KEYWORD in kwargs:
        kwargs = dict(kwargs)
        group = kwargs.pop(GROUP_KEYWORD)
        if group is not None and not isinstance(group, TaskGroup):
            raise ArgumentError(f"{GROUP_KEYWORD} must be a TaskGroup, not {group!r:.80}.")
        task_group_id = None if group is None else group.pk
    limit = get_config().settings.maximum_payload_bytes
    return (*encode_arguments(args, kwargs, limit=limit, of_step=of_step), task_group_id)


def _key(spec: TaskSpec, options: CallOptions, args: Sequence[JSON], kwargs: Mapping[str, JSON]) -> Key:
    from ..store.keys import argument_key, caller_key

    if options.idempotency_key is not None:
        return caller_key(spec, options.idempotency_key, options.idempotency_period or A_DAY)
    return argument_key(spec, args, kwargs)
