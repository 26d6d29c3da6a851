"""Help for the tests of projects that use i3tasks: see docs/testing.md.

    def test_a_signup_sends_a_welcome(client):
        client.post("/signup/", {"email": "a@example.com"})
        assert_enqueued(send_welcome, args=("a@example.com",))
        drain()
        assert mail.outbox[0].to == ["a@example.com"]

pytest loads the plugin in it before there are settings, so its names are imported at their first use.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .asserting import all_enqueued, assert_enqueued, refute_enqueued
    from .clock import advance, reset_clock
    from .draining import adrain, drain
    from .setup import TestMixin, eager, nothing_published
    from .workers import RunningWorker, worker

_HOMES = {
    "RunningWorker": "workers",
    "TestMixin": "setup",
    "adrain": "draining",
    "advance": "clock",
    "all_enqueued": "asserting",
    "assert_enqueued": "asserting",
    "drain": "draining",
    "eager": "setup",
    "nothing_published": "setup",
    "refute_enqueued": "asserting",
    "reset_clock": "clock",
    "worker": "workers",
}

__all__ = [
    "RunningWorker",
    "TestMixin",
    "adrain",
    "advance",
    "all_enqueued",
    "assert_enqueued",
    "drain",
    "eager",
    "nothing_published",
    "refute_enqueued",
    "reset_clock",
    "worker",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{home}", __name__), name)
