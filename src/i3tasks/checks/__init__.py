"""System checks: mistakes that would otherwise show only while tasks run. Importing this module registers them."""

from .board import check_board
from .database import check_engine, check_pool, check_time_zones, check_upgrade
from .deployment import check_endpoints, check_push
from .settings import (
    check_propagation,
    check_schedules,
    check_settings,
    check_subscriptions,
    check_tasks_beside_settings,
)

__all__ = [
    "check_board",
    "check_endpoints",
    "check_engine",
    "check_pool",
    "check_propagation",
    "check_push",
    "check_schedules",
    "check_settings",
    "check_subscriptions",
    "check_tasks_beside_settings",
    "check_time_zones",
    "check_upgrade",
]
