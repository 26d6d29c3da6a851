"""Names that django-i3tasks documents here."""

from .calls.cleaning import clean_old_task_executions, old_task_executions

__all__ = ["clean_old_task_executions", "old_task_executions"]
