"""The wire format: the content of an i3tasks message in Pub/Sub.

Data is UTF-8 JSON:

    {"args": [], "kwargs": {}, "meta_info": {"bind": false, "encoding": "utf-8", "module_name": "shop.tasks",
     "func_name": "add", "task_execution_id": 1, "task_execution_try_id": 1}}

and the attributes are `encoding` ("utf-8") and `pub_time` (ISO 8601, UTC). The format is that of django-i3tasks, so
that its workers and those of i3tasks can share a subscription during a rolling deploy. A reader trusts the two ids and
nothing else: function and arguments are read from the row, so `args` and `kwargs` are empty and messages stay small.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any

from ..exceptions import EnvelopeError
from .record import record
from .text import is_utf8

ENCODING = "utf-8"
LONGEST_NAME = 256
"""The length of the columns that hold a task's module and function."""
_MAXIMUM_ID = 2**63 - 1


@record
class Envelope:
    """Names one try. `module_name` and `func_name` are for logs, old workers, and the choice of where it waits."""

    task_execution_id: int
    task_execution_try_id: int
    module_name: str
    func_name: str
    bind: bool = False

    def to_bytes(self) -> bytes:
        """The message's data."""
        start = _start(self.bind, self.module_name, self.func_name)
        execution_id, try_id = self.task_execution_id, self.task_execution_try_id
        return f'{start}, "task_execution_id": {execution_id}, "task_execution_try_id": {try_id}}}}}'.encode(ENCODING)

    @classmethod
    def from_bytes(cls, data: bytes, encoding: str = ENCODING) -> Envelope:
        """Read a message's data; `encoding` is what its attributes say. Raises EnvelopeError if it can't be read."""
        meta_info = _meta_info(data, encoding)
        return cls(
            task_execution_id=_id(meta_info, "task_execution_id"),
            task_execution_try_id=_id(meta_info, "task_execution_try_id"),
            module_name=_name(meta_info, "module_name"),
            func_name=_name(meta_info, "func_name"),
            bind=meta_info.get("bind") is True,
        )


@lru_cache(maxsize=1000)
def _start(bind: bool, module_name: str, func_name: str) -> str:
    """The text before the ids, which is the same for all tries of a task."""
    meta_info = {"bind": bind, "encoding": ENCODING, "module_name": module_name, "func_name": func_name}
    return json.dumps({"args": [], "kwargs": {}, "meta_info": meta_info}).removesuffix("}}")


def attributes(pub_time: datetime) -> dict[str, str]:
    """The attributes that travel beside the data."""
    return {"encoding": ENCODING, "pub_time": pub_time.isoformat()}


def _meta_info(data: bytes, encoding: str) -> Mapping[str, Any]:
    # A sender must not choose the codec: some take quadratic time, and Python keeps each unknown name for ever.
    if encoding != ENCODING and not is_utf8(encoding):
        raise EnvelopeError(f"The message's `encoding` must be utf-8, not {encoding!r:.80}.")
    try:
        body = json.loads(data.decode(ENCODING))
    except UnicodeError as error:
        raise EnvelopeError(f"The message is not {ENCODING!r} text: {error}") from error
    except (ValueError, RecursionError) as error:
        raise EnvelopeError(f"The message is not JSON: {error}") from error
    meta_info = body.get("meta_info") if isinstance(body, dict) else None
    if not isinstance(meta_info, dict):
        raise EnvelopeError("The message has no `meta_info` object, so it is not an i3tasks envelope.")
    return meta_info


def _id(meta_info: Mapping[str, Any], field: str) -> int:
    value = meta_info.get(field)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value <= _MAXIMUM_ID:
        raise EnvelopeError(f"`meta_info.{field}` must be a positive integer id, not {value!r:.80}.")
    return value


def _name(meta_info: Mapping[str, Any], field: str) -> str:
    value = meta_info.get(field)
    if not isinstance(value, str) or not 0 < len(value) <= LONGEST_NAME:
        raise EnvelopeError(f"`meta_info.{field}` must be a name of 1 to {LONGEST_NAME} characters, not {value!r:.80}.")
    return value
