"""Several streams of one queue seen as one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from i3tasks.broker import streams
from i3tasks.broker.errors import StreamBroken
from i3tasks.broker.streams import Streams
from i3tasks.conf import get_config


class OneStream:
    """As much of a receiver as is asked of it."""

    made: list[OneStream]
    is_down, is_sound, quiet_seconds, doubts, was_cancelled = False, True, 9.0, 0, False

    def __init__(self, names: Any, **_: Any) -> None:
        self.ends: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        OneStream.made.append(self)

    async def run(self, deliver: Callable[[Any], None]) -> None:
        try:
            await self.ends
        except asyncio.CancelledError:
            self.was_cancelled = True
            raise

    def doubt(self) -> None:
        self.doubts += 1


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[OneStream]:
    OneStream.made = []
    monkeypatch.setattr(streams, "Receiver", OneStream)
    return OneStream.made


def two() -> Streams:
    return Streams(get_config().queue(None), max_messages=10, count=2)


async def test_one_stream_that_works_is_enough_to_hear_and_all_must_be_sound(made: list[OneStream]) -> None:
    together = two()
    made[0].is_down, made[0].is_sound, made[0].quiet_seconds = True, False, 2.0
    assert (together.is_down, together.is_sound, together.quiet_seconds) == (False, False, 2.0)
    made[1].is_down = made[0].is_sound = True
    assert (together.is_down, together.is_sound) == (True, True)
    together.doubt()
    assert [one.doubts for one in made] == [1, 1]


async def test_a_stream_that_is_given_up_ends_the_others(made: list[OneStream]) -> None:
    running = asyncio.create_task(two().run(lambda incoming: None))
    await asyncio.sleep(0)
    made[0].ends.set_exception(StreamBroken("it broke"))
    with pytest.raises(StreamBroken, match="it broke"):
        await running
    assert made[1].was_cancelled
