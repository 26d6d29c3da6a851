"""The form of a schedule."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from django import forms
from django.core.exceptions import ValidationError
from django.forms.fields import InvalidJSONInput

from ..exceptions import ScheduleError, StoreUnavailable
from ..models import TaskSchedule
from ..registry import all_tasks, registered
from ..store.lock_timeout import LONGEST_LOCK, short_locks

NAMES_IN_FORM = {"module_name": "task", "func_name": "task"}
BUSY = "Nothing was changed: another transaction is changing this schedule. Try again."
UNREADABLE = (
    "This JSON can't be stored: its numbers are too long, it is nested too deeply, or it holds half a character."
)

if TYPE_CHECKING:
    ScheduleFormBase = forms.ModelForm[TaskSchedule]
else:
    ScheduleFormBase = forms.ModelForm


class ArgumentsField(forms.JSONField):
    """JSON that a user typed. What Python or the database can't take is a wrong value, and no error of the page."""

    def to_python(self, value: Any) -> Any:
        try:
            parsed = super().to_python(value)
            json.dumps(parsed, ensure_ascii=False).encode()
        except (ValueError, RecursionError) as error:  # a number of 5,000 digits; 5,000 brackets; "\ud800"
            raise ValidationError(UNREADABLE, code="invalid") from error
        return parsed

    def bound_data(self, data: Any, initial: Any) -> Any:
        """The typed text, to be shown again."""
        try:
            self.to_python(data)
        except ValidationError:
            return InvalidJSONInput(data or "")
        return super().bound_data(data, initial)


class ScheduleForm(ScheduleFormBase):
    """A schedule's form. It refuses a schedule that could not run."""

    field_order = ("name", "task")
    task = forms.CharField(help_text="The tasks that this process knows.")
    args = ArgumentsField(required=False)
    kwargs = ArgumentsField(required=False)

    class Meta:
        model = TaskSchedule
        fields = (
            "name",
            "cron",
            "time_zone",
            "args",
            "kwargs",
            "queue_name",
            "enabled",
            "catch_up",
            "description",
        )
        help_texts = {
            "cron": "Minute, hour, day of month, month, day of week; or @hourly, @daily, @weekly, @monthly, @yearly.",
            "time_zone": "For example Europe/Berlin. Empty: the project's.",
            "queue_name": "Empty: the task's own.",
            "catch_up": "Which missed slots run after a time without a beat.",
        }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if "task" not in self.fields:  # absent from the page of a user who may only look
            return
        own = _path(self.instance.task_path, self.instance.task_name)
        self.fields["task"].initial = own
        # A row may name a task that is no longer registered.
        known = sorted({spec.path for spec in all_tasks()} | {own} - {""})
        self.fields["task"].widget = forms.Select(choices=[("", "---------"), *((item, item) for item in known)])

    def clean_args(self) -> Any:
        return [] if self.cleaned_data["args"] is None else self.cleaned_data["args"]

    def clean_kwargs(self) -> Any:
        return {} if self.cleaned_data["kwargs"] is None else self.cleaned_data["kwargs"]

    def clean(self) -> dict[str, Any]:
        from ..core.schedule_fields import problems  # late: every process with an admin imports this module
        from ..store.schedules import of_row, require_free_name

        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        if self.errors:
            return cleaned
        path, _, name = cleaned["task"].rpartition(".")
        self.instance.task_path, self.instance.task_name = path, name
        columns = {column: value for column, value in cleaned.items() if column != "task"}
        schedule = of_row(TaskSchedule(**columns, task_path=path, task_name=name))
        wrong = problems({name: getattr(schedule, name) for name in schedule.__dataclass_fields__})
        for name, problem in wrong.items():
            self.add_error(NAMES_IN_FORM.get(name, name), problem)
        if not wrong:
            try:
                require_free_name(cleaned["name"])
                schedule.call(registered)
                self._lock()
            except (ScheduleError, StoreUnavailable) as error:
                self.add_error(None, str(error))
        return cleaned

    def _lock(self) -> None:
        """Lock the schedule before the change. If another transaction holds it, the form keeps what the user typed."""
        from ..store.schedules import lock_schedule

        if self.instance.pk is not None:
            with short_locks(LONGEST_LOCK, BUSY):
                lock_schedule(self.instance.pk)


def _path(module_name: str, func_name: str) -> str:
    return ".".join(filter(None, [module_name, func_name]))
