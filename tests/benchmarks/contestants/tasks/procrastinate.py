from procrastinate.contrib.django import app

from ...harness.bodies import BODIES

TASKS = {name: app.task(name=name)(body) for name, body in BODIES.items()}


async def defer_async(count: int, kind: str) -> None:
    other = app.with_connector(app.connector.get_worker_connector())
    async with other.open_async():
        for index in range(count):
            await other.tasks[kind].defer_async(index=index)
