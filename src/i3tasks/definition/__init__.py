"""`@task`: a function that can be called later, elsewhere.

    @task(queue_name="mail", max_retries=5)
    async def send_email(recipient: str, subject: str) -> str: ...

    await send_email.adelay("a@example.com", "Hi")

`delay` and its kin write rows in the caller's transaction; publishing follows its commit and is never waited for.
Every method that touches the database has an `a`-twin for coroutines.
"""

from .decorators import TaskDecorator, task
from .kinds import AsyncTask, RecordedTask, SyncTask, Task

__all__ = ["AsyncTask", "RecordedTask", "SyncTask", "Task", "TaskDecorator", "task"]
