"""The tasks that this process knows: name -> function and options.

A task's name is its module (`task_path` of a row) and its function (`task_name`). Only registered tasks run. A task is
registered when the module with its `@task` is imported; `discover` imports all such modules at start-up.
"""

from .definition import checked, option_problems
from .lookup import (
    RENAMED_MODULES,
    add,
    add_finder,
    all_tasks,
    concealer_of,
    discover,
    find,
    load,
    policy_of,
    register,
    registered,
    require_discoverable,
    settings_package,
)
from .specs import Isolation, TaskOptions, TaskSpec
from .topics import topic_of

__all__ = [
    "RENAMED_MODULES",
    "Isolation",
    "TaskOptions",
    "TaskSpec",
    "add",
    "add_finder",
    "all_tasks",
    "checked",
    "concealer_of",
    "discover",
    "find",
    "load",
    "option_problems",
    "policy_of",
    "register",
    "registered",
    "require_discoverable",
    "settings_package",
    "topic_of",
]
