"""The reports of i3tasks on its work: the catalogue of events, the bus that carries them, and their log lines.

The other modules only report what happened, as in `emit("try_failed", error="...")`. The makers of log lines, metrics,
spans and signals subscribe.
"""

from .bodies import TaskFilter, add_task
from .bus import Consumer, emit, report_consumer, subscribe, wanted
from .catalogue import EVENTS, TRY, Event
from .context import Facts, bind_run, run_bound, run_facts
from .formats import CloudLoggingFormatter, ConsoleFormatter

__all__ = [
    "EVENTS",
    "TRY",
    "CloudLoggingFormatter",
    "ConsoleFormatter",
    "Consumer",
    "Event",
    "Facts",
    "TaskFilter",
    "add_task",
    "bind_run",
    "emit",
    "report_consumer",
    "run_bound",
    "run_facts",
    "subscribe",
    "wanted",
]
