"""Calls become rows."""

from __future__ import annotations

from collections.abc import Sequence

from ..clock import SYSTEM_CLOCK
from ..conf import get_config
from ..models import TaskExecutionTry
from ..registry import TaskSpec
from ..store.enqueue import NewExecution, insert
from ..store.keys import KeyRequest, argument_key, insert_once
from .options import A_DAY, CallOptions, caller_key


def write(calls: Sequence[NewExecution]) -> list[TaskExecutionTry]:
    """Insert the calls, in the caller's transaction."""
    return insert(calls, now=SYSTEM_CLOCK.now(), grace_seconds=get_config().settings.publish_grace_seconds)


def is_keyed(spec: TaskSpec, options: CallOptions) -> bool:
    """Whether a call may turn out to be one that is there already."""
    return spec.options.unique or options.idempotency_key is not None


def write_one(call: NewExecution, spec: TaskSpec, options: CallOptions) -> tuple[TaskExecutionTry, bool]:
    """Insert a keyed call, and True; or find the call that has its key, and False."""
    now = SYSTEM_CLOCK.now()
    if options.idempotency_key is not None:
        key = caller_key(call.module_name, call.func_name, options.idempotency_key)
        expires_at = now + (options.idempotency_period or A_DAY)
    else:
        key, expires_at = argument_key(call.module_name, call.func_name, call.args, call.kwargs), None
    request = KeyRequest(key, SYSTEM_CLOCK.new_uuid7(), expires_at)
    return insert_once(request, lambda: write([call])[0], now=now)
