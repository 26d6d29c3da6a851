"""The rows. The functions that change them are in `store/`."""

from .base import StoredJSON, new_uuid, new_uuids
from .board import BoardAct, QueuePause, StackRequest
from .executions import HEAVY, ExecutionOutcome, TaskExecution, TaskKey
from .groups import GroupSlice, TaskGroup
from .schedules import CatchUp, ScheduleState, ScheduleTick, TaskSchedule
from .tries import TaskExecutionResult, TaskExecutionTry, TryState
from .workers import Deploy, Worker, WorkerRole, WorkerState

__all__ = [
    "HEAVY",
    "BoardAct",
    "CatchUp",
    "Deploy",
    "ExecutionOutcome",
    "GroupSlice",
    "QueuePause",
    "ScheduleState",
    "ScheduleTick",
    "StackRequest",
    "StoredJSON",
    "TaskExecution",
    "TaskExecutionResult",
    "TaskExecutionTry",
    "TaskGroup",
    "TaskKey",
    "TaskSchedule",
    "TryState",
    "Worker",
    "WorkerRole",
    "WorkerState",
    "new_uuid",
    "new_uuids",
]
