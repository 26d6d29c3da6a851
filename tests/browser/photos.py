"""Tasks with names that look well in pictures."""

import asyncio
from typing import Any

from i3tasks import RetryPolicy, task


class CardDeclined(Exception):
    """A customer's card has no money."""


@task
async def resize(photo: str, width: int) -> str:
    return f"{photo.removesuffix('.jpg')}-{width}.jpg"


@task
def publish_album(photos: list[str]) -> dict[str, Any]:
    return {"photos": photos, "url": "/albums/42/"}


@task
async def find_photos(album: int) -> list[str]:
    return [f"{album}-{number}.jpg" for number in range(3)]


@task(max_retries=0)
def charge_card(order: int) -> None:
    raise CardDeclined(f"order {order}: the bank said no")


@task(retry=RetryPolicy(max_retries=5, base_seconds=900, max_seconds=900))
async def sync_stock(warehouse: str) -> None:
    raise TimeoutError(f"{warehouse} gave no answer")


@task
async def render_video(seconds: float) -> str:
    await asyncio.sleep(seconds)
    return "done"


@task(queue_name="push")
async def send_receipt(order: int) -> str:
    return f"sent {order}"


@task
def echo(text: str) -> str:
    return text
