"""Every error that i3tasks raises or records.

    I3TasksError
    ├── TaskDefinitionError          the decorator was used on something that can't be a task
    ├── ArgumentError (TypeError)    an argument or a result that JSON can't carry
    ├── UnknownQueueError            a queue name that I3TASKS doesn't have
    ├── UnknownTaskError             a row names a function that isn't a registered task
    ├── ScheduleError (ValueError)   a schedule that can't be run as it is written
    ├── SearchError (ValueError)     a filter of executions that can't be read
    ├── EnvelopeError                a message that isn't ours, or is broken
    ├── BrokerError                  Pub/Sub refused, or gave no answer
    ├── StoreUnavailable             the database gave no answer
    ├── ExecutionNotFound (LookupError)  no execution has this id or uuid
    ├── WouldWaitForever (TimeoutError)  raised by `result()`: the result could never come
    ├── TaskFailed                   raised by `result()`: the task failed, or was cancelled
    ├── PermanentError               raised by a body: don't try again
    ├── ResultUnavailable            a result that was not kept as a value, where one is asked for
    ├── Retry                        raised by a body: try again, after this delay
    ├── Snooze                       raised by a body: run again after this delay, which uses up no try
    ├── TaskTimeout                  the body ran past its `timeout`
    ├── TaskCancelled                the execution was cancelled
    ├── LeaseLost                    the try was settled or expired while its body ran
    ├── WorkerLost                   the process that ran the try died
    └── MaxRetriesExceededError      the last try failed

A class's docstring is its default message: it says what happened, and what to do. Its note, with which a traceback
ends, names the page of the documentation that says more.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any


class I3TasksError(Exception):
    """Something went wrong in i3tasks."""

    _page = "reference/errors.md"

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message if message is not None else " ".join((type(self).__doc__ or "").split()))
        if self._page:
            self.add_note(f"See docs/{self._page}.")


class TaskDefinitionError(I3TasksError):
    """This can't be a task. Decorate a function at the top level of an importable module."""


class ArgumentError(I3TasksError, TypeError):
    """A value can't be stored as JSON. Pass plain data (an id, not an object) to the task."""


class UnknownQueueError(I3TasksError):
    """There is no such queue. Add it to `other_queues` of I3TASKS, or use the name of one that is there."""


class UnknownTaskError(I3TasksError):
    """No task is registered under this name. Deploy the code that defines it, or list its module in `task_modules`."""

    _page = "troubleshooting.md#unknowntaskerror"


class ScheduleError(I3TasksError, ValueError):
    """The schedule can't be run as it is written. Correct the field that the error names."""


class SearchError(I3TasksError, ValueError):
    """A filter of executions can't be read. Correct the field that the error names."""

    def __init__(self, message: str | None = None, *, field: str = "") -> None:
        super().__init__(message)
        self.field = field


class EnvelopeError(I3TasksError):
    """The message is not an i3tasks envelope. Check what else publishes to this topic."""


class BrokerError(I3TasksError):
    """Pub/Sub did not accept the request. The rows are safe and will be published again."""


class StoreUnavailable(I3TasksError):
    """The database gave no answer. Nothing was lost: work goes on when it answers again."""


class ExecutionNotFound(I3TasksError, LookupError):
    """There is no such execution: its transaction was rolled back, or retention has deleted it. Enqueue it again."""


class WouldWaitForever(I3TasksError, TimeoutError):
    """The result could never come while the caller waits for it. Enqueue the next step instead of waiting."""


class TaskFailed(I3TasksError):
    """The task did not succeed, so there is no result. Its tries say why: `i3tasks status ID`."""


class PermanentError(I3TasksError):
    """The task failed for good. Raise this (or a subclass) in a body to skip the retries that are left."""

    _page = ""  # the body raises it, and knows why


class ResultUnavailable(I3TasksError):
    """The result was not kept as a value, but as text. Return plain data that JSON can hold."""


class Retry(I3TasksError):
    """The task asked to be tried again. Raise `Retry(delay=seconds)` in a body; it counts as a failed try.

    `delay` is in seconds or a timedelta; None means the task's own backoff. Raises ArgumentError for a message that is
    a number or a timedelta, which was meant as the delay.
    """

    _page = ""
    delay: timedelta | None = None  # also for a subclass that does not call `__init__`

    def __init__(self, message: str | None = None, *, delay: float | timedelta | None = None) -> None:
        if isinstance(message, (int, float, timedelta)):
            raise ArgumentError(f"The first argument of Retry is its message: write Retry(delay={message!r:.80}).")
        self.delay = delay if isinstance(delay, timedelta) or delay is None else timedelta(seconds=delay)
        if message is None and type(self) is Retry:
            message = f"The body asked for another try {_when(self.delay)}."
        super().__init__(message)


class Snooze(I3TasksError):
    """The task asked to be run again later. Raise `Snooze(seconds)` in a body; it uses up no try.

    `delay` is in seconds or a timedelta.
    """

    _page = ""
    delay = timedelta(0)  # also for a subclass that does not call `__init__`

    def __init__(self, delay: float | timedelta, message: str | None = None) -> None:
        self.delay = delay if isinstance(delay, timedelta) else timedelta(seconds=delay)
        super().__init__(f"The body asked to be run again {_when(self.delay)}." if message is None else message)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.delay, str(self))


def _when(delay: timedelta | None) -> str:
    return "after the task's own backoff" if delay is None else f"in {delay.total_seconds():g} s"


class TaskTimeout(I3TasksError):
    """The body ran longer than the task's `timeout`. Make it faster, split it, or raise the limit."""


class TaskCancelled(I3TasksError):
    """The execution was cancelled. `i3tasks retry ID` runs it after all."""


class LeaseLost(I3TasksError):
    """The try's lease ended while its body ran, whose result is not recorded. Look for what froze this process."""


class WorkerLost(I3TasksError):
    """The process that ran this try died or stopped answering before it finished. Look for its last log lines."""


class MaxRetriesExceededError(I3TasksError):
    """The task failed on its last allowed try. The try's error has the cause; `retry()` gives it one more try."""
