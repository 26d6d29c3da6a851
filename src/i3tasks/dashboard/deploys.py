"""The marks of deploys in the charts: when the `release` of I3TASKS became another one."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from ..store.deploys import Deployed
from .charts import Mark
from .writing import relative


def marks(deploys: Sequence[Deployed], since: datetime, now: datetime) -> list[Mark]:
    """The marks of a chart that goes from `since` until now."""
    seconds = max((now - since).total_seconds(), 1.0)
    return [
        Mark((one.at - since).total_seconds() / seconds, f"Deployed {relative(one.at, now)}: {one.release}")
        for one in deploys
        if one.at <= now
    ]
