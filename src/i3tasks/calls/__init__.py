"""`@task`: a function that can be called later, elsewhere.

    @task(queue_name="mail", max_retries=5)
    async def send_email(recipient: str, subject: str) -> str: ...

    await send_email.adelay("a@example.com", "Hi")

`delay` and its variants write rows in the caller's transaction. The rows are published after its commit, and no
caller waits for that. Every method that touches the database has an `a`-twin for coroutines.
"""
