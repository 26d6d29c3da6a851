"""Every error that i3tasks raises or records.

    I3TasksError
    ├── TaskDefinitionError          the decorator was used on something that can't be a task
    ├── ArgumentError (TypeError)    an argument or a result that JSON can't carry
    ├── UnknownQueueError            a queue name that I3TASKS doesn't have
    ├── UnknownTaskError             a row names a function that isn't a registered task
    ├── ScheduleError (ValueError)   a schedule that can't be run as it is written
    ├── EnvelopeError                a message that isn't ours, or is broken
    ├── BrokerError                  Pub/Sub refused, or gave no answer
    ├── StoreUnavailable             the database gave no answer
    ├── TaskFailed                   whose result was asked for failed, or was cancelled
    ├── PermanentError               raised by a body: don't try again
    ├── Retry                        raised by a body: try again, when I say
    ├── TaskTimeout                  the body ran past its `timeout`
    ├── TaskCancelled                somebody cancelled the execution
    ├── LeaseLost                    the try was settled or expired while its body ran
    ├── WorkerLost                   the process that ran the try died
    └── MaxRetriesExceededError      the last try failed

A class's docstring is its default message: what happened, and what to do about it.
"""

from __future__ import annotations

from datetime import timedelta


class I3TasksError(Exception):
    """Something went wrong in i3tasks."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message if message is not None else " ".join((type(self).__doc__ or "").split()))


class TaskDefinitionError(I3TasksError):
    """This can't be a task. Decorate a function at the top level of an importable module."""


class ArgumentError(I3TasksError, TypeError):
    """A value can't be stored as JSON. Pass plain data (an id, not an object) to the task."""


class UnknownQueueError(I3TasksError):
    """There is no such queue. Add it to `other_queues` of I3TASKS, or use the name of one that is there."""


class UnknownTaskError(I3TasksError):
    """No task is registered under this name. Deploy the code that defines it, or list its module in `task_modules`."""


class ScheduleError(I3TasksError, ValueError):
    """The schedule can't be run as it is written. Mend the field that is named."""


class EnvelopeError(I3TasksError):
    """The message is not an i3tasks envelope. Check what else publishes to this topic."""


class BrokerError(I3TasksError):
    """Pub/Sub did not accept the request. The rows are safe and will be published again."""


class StoreUnavailable(I3TasksError):
    """The database gave no answer. Nothing was lost: the work goes on when it is back."""


class TaskFailed(I3TasksError):
    """The task did not succeed, so there is no result. Its tries say why."""


class PermanentError(I3TasksError):
    """The task failed for good. Raise this (or a subclass) in a body to skip the retries that are left."""


class Retry(I3TasksError):
    """The task asked to be tried again. Raise `Retry(delay=seconds)` in a body; it counts as a failed try.

    `delay` is in seconds or a timedelta; None means the task's own backoff.
    """

    delay: timedelta | None = None  # of a subclass that does not call `__init__`, too

    def __init__(self, message: str | None = None, *, delay: float | timedelta | None = None) -> None:
        super().__init__(message)
        self.delay = delay if isinstance(delay, timedelta) or delay is None else timedelta(seconds=delay)


class TaskTimeout(I3TasksError):
    """The body ran longer than the task's `timeout`. Make it faster, split it, or raise the limit."""


class TaskCancelled(I3TasksError):
    """The execution was cancelled."""


class LeaseLost(I3TasksError):
    """This worker's lease on the try is gone: another one may have it. What the body returned is not recorded."""


class WorkerLost(I3TasksError):
    """The process that ran this try died or stopped answering before it finished. Look for its last log lines."""


class MaxRetriesExceededError(I3TasksError):
    """The task failed on its last allowed try. See the try's error for the cause, then retry it by hand if need be."""
