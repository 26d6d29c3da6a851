"""The backend class, whose methods Django's framework calls."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from functools import cached_property
from typing import Any

from asgiref.sync import sync_to_async
from django.apps import apps
from django.core import checks
from django.core.exceptions import ImproperlyConfigured

from ..calls.base import split
from ..conf import get_config
from ..core.clock import current_clock
from ..core.values import encode_arguments
from ..engine.launch import launch, refuse_in_loop
from ..exceptions import ArgumentError
from ..registry import TaskSpec, require_discoverable
from ..store.enqueue import NewExecution, enqueue
from ..store.keys import argument_key
from ..store.pauses import ASIDE_FROM
from .declared import row_options, spec_of
from .framework import (
    AnyResult,
    AnyTask,
    BaseTaskBackend,
    InvalidTask,
    normalize_json,
    task_enqueued,
)
from .options import BackendOptions, WrongOptions
from .queues import own_name
from .results import IN_ROW, as_result, result_of
from .tasks import Calls, PubSubTask


class PubSubBackend(BaseTaskBackend):
    """Runs the tasks of Django's framework by the workers and push views of i3tasks, as rows of i3tasks.

    `QUEUES` lists queues of I3TASKS; `[]` allows all. `OPTIONS` are described by BackendOptions.
    """

    task_class = PubSubTask
    supports_defer = True
    supports_async_task = True
    supports_get_result = True
    supports_priority = True

    def __init__(self, alias: str, params: Mapping[str, Any]) -> None:
        super().__init__(alias, dict(params))

    @cached_property
    def own_options(self) -> BackendOptions:
        """OPTIONS. Raises InvalidTaskBackend if they are wrong."""
        return BackendOptions.read(self.alias, self.options)

    def validate_task(self, task: AnyTask) -> None:
        """Raise InvalidTask if i3tasks can't run the task; else make it known to workers."""
        if task.run_after is not None and not isinstance(task.run_after, datetime):
            raise InvalidTask(f"run_after must be an aware datetime, not {task.run_after!r:.80}.")
        super().validate_task(task)
        self._queue(task)
        if task.run_after is not None and task.run_after >= ASIDE_FROM:
            last = ASIDE_FROM.year - 1
            raise InvalidTask(
                f"run_after is {task.run_after.isoformat()}: no task can be put off beyond {last}. Choose an earlier "
                "instant."
            )
        spec_of(task, self.own_options)

    def enqueue(self, task: Any, args: Any, kwargs: Any) -> Any:
        """Enqueue a call, as part of the caller's transaction.

        Raises TypeError for arguments that JSON can't hold or that the task does not take, InvalidTask.
        """
        return self._enqueue(task, [(args, kwargs)])[0]

    def enqueue_many(self, task: AnyTask, calls: Calls) -> list[AnyResult]:
        """Enqueue many calls in one transaction: each item is a call's positional arguments, or a dict of keywords."""
        return self._enqueue(task, [split(call) for call in calls])

    async def aenqueue_many(self, task: AnyTask, calls: Calls) -> list[AnyResult]:
        """`enqueue_many` for coroutines."""
        return await sync_to_async(self.enqueue_many)(task, calls)

    def get_result(self, result_id: str) -> AnyResult:
        """The call with this id, which is its execution's uuid. Raises TaskResultDoesNotExist."""
        return result_of(result_id, self.alias)

    def check(self, **kwargs: Any) -> list[checks.CheckMessage]:
        """The mistakes in TASKS that would otherwise show only when a task is enqueued."""
        if not apps.is_installed("i3tasks"):
            message = f"TASKS[{self.alias!r}] is run by i3tasks, which is not installed."
            return [checks.Error(message, hint="Add 'i3tasks' to INSTALLED_APPS.", id="i3tasks.E020")]
        try:
            known = ", ".join(sorted(get_config().queues))
            aliases = self.own_options.queues
        except WrongOptions as error:
            return [checks.Error(str(error), id="i3tasks.E022")]
        except ImproperlyConfigured:
            return []  # i3tasks.E001
        return [
            checks.Error(
                f"The queue {name!r} in QUEUES of TASKS[{self.alias!r}] is no queue of I3TASKS, which has {known}.",
                hint="Add the queue to other_queues, or say in OPTIONS['queues'] which one it stands for.",
                id="i3tasks.E021",
            )
            for name in sorted(self.queues)
            if own_name(name, aliases) is None
        ]

    def _enqueue(self, task: AnyTask, calls: Iterable[tuple[Sequence[Any], Mapping[str, Any]]]) -> list[AnyResult]:
        refuse_in_loop("enqueue", "aenqueue")
        self.validate_task(task)
        spec = spec_of(task, self.own_options)
        require_discoverable(spec)
        new = [self._call(task, spec, args, kwargs) for args, kwargs in calls]
        answers = enqueue(new, now=current_clock().now())
        launch(answers.new)
        results = [
            as_result(task_try.task_execution, self.alias, [task_try] if is_new else None)
            for task_try, is_new in answers
        ]
        for result, (_, is_new) in zip(results, answers, strict=True):
            if is_new:
                task_enqueued.send(type(self), task_result=result)
        return results

    def _call(self, task: AnyTask, spec: TaskSpec, args: Sequence[Any], kwargs: Mapping[str, Any]) -> NewExecution:
        plain_args: Any = normalize_json(list(args))
        plain_kwargs: Any = normalize_json(dict(kwargs))
        if problem := spec.argument_problem(plain_args, plain_kwargs):
            raise ArgumentError(problem)
        limit = get_config().settings.maximum_payload_bytes
        encoded_args, encoded_kwargs = encode_arguments(plain_args, plain_kwargs, limit=limit)
        return NewExecution(
            module_name=spec.module_name,
            func_name=spec.func_name,
            args=encoded_args,
            kwargs=encoded_kwargs,
            queue_name=self._queue(task),
            run_after=task.run_after,
            priority=task.priority,
            options={
                IN_ROW: {"backend": self.alias, "queue_name": task.queue_name},
                **row_options(spec, self.alias, self.own_options),
            },
            chain=spec.options.on_success,
            key=argument_key(spec, encoded_args, encoded_kwargs) if spec.options.unique else None,
        )

    def _queue(self, task: AnyTask) -> str:
        name = own_name(task.queue_name, self.own_options.queues)
        if name is None:
            raise InvalidTask(
                f"I3TASKS has no queue {task.queue_name!r}. Add it to other_queues, or say in OPTIONS['queues'] of "
                f"TASKS[{self.alias!r}] which queue it stands for."
            )
        return name
