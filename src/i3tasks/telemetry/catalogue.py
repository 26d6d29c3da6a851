"""The catalogue of events: everything that i3tasks reports, as data.

Log lines, metrics, spans and signals are made from these events, and so is the table in docs/reference/events.md.
An event that is not declared here, or that has other fields than are declared, fails the tests.
"""

from __future__ import annotations

from dataclasses import dataclass
from logging import DEBUG, ERROR, INFO, WARNING, getLevelName

TRY = ("execution_id", "execution_uuid", "try_id", "task", "queue", "try_number", "worker")
"""The fields of an event about a try that is or was being run. `emit` adds them to what a run reports of itself."""
SCHEDULE = "schedule"
"""A field of every event about a try whose execution a schedule enqueued."""
TRACEBACK = "exc_info"


@dataclass(frozen=True, slots=True)
class Event:
    """One kind of event."""

    name: str
    level: int
    sentence: str
    fields: tuple[str, ...] = ()
    """The fields that it always has."""
    optional: tuple[str, ...] = ()
    """The fields that it has where they apply."""

    @property
    def level_name(self) -> str:
        return str(getLevelName(self.level))

    @property
    def is_about_a_try(self) -> bool:
        """Whether it takes the fields of the run in which it happens."""
        return "worker" in self.fields or "worker" in self.optional

    def problem(self, given: set[str]) -> str:
        """A sentence about what is wrong with the fields `given`; "" if nothing is."""
        missing = [name for name in self.fields if name not in given]
        own = {SCHEDULE} if "execution_id" in self.fields or self.is_about_a_try else set()
        unknown = sorted(given - own - {*self.fields, *self.optional})
        said = [f"misses {', '.join(missing)}"] * bool(missing) + [f"has undeclared {', '.join(unknown)}"] * bool(
            unknown
        )
        return f"The event {self.name!r} {' and '.join(said)}: see the catalogue in telemetry." if said else ""


_TIMES = ("duration", "queue_time")
_ERROR = ("error_class", "error")
_MORE = ("arguments", "stack_trace", TRACEBACK)
"""Of failures. `stack_trace` is a traceback as text, which stands in for one that would show sensitive arguments."""

_ALL = (
    # ------------------------------------------------------------------------------------ executions and their tries
    Event(
        "execution_enqueued",
        DEBUG,
        "A call was written, and its transaction committed. `due_at` is there when it was deferred.",
        ("execution_id", "execution_uuid", "try_id", "task", "queue", "try_number"),
        ("due_at",),
    ),
    Event("try_started", DEBUG, "A worker has the lease on a try, and begins with its body.", (*TRY, "queue_time")),
    Event("try_succeeded", DEBUG, "A body returned.", (*TRY, *_TIMES), ("arguments",)),
    Event(
        "tries_summed_up",
        INFO,
        "Many tries succeed: beside those that had a line each, `count` did so in the last `seconds`. `tasks` are the "
        "most frequent ones.",
        ("count", "seconds", "mean_duration", "tasks"),
    ),
    Event(
        "try_failed",
        WARNING,
        "A body failed or its worker was lost, and another try follows.",
        (*TRY, *_TIMES, *_ERROR),
        ("next_try", "next_try_at", *_MORE),
    ),
    Event(
        "execution_failed",
        ERROR,
        "A body failed or its worker was lost, and no other try follows. Said once for each execution.",
        (*TRY, *_TIMES, *_ERROR),
        _MORE,
    ),
    Event(
        "execution_cancelled",
        INFO,
        "An execution was cancelled before it ran, or its body was stopped for it, or its worker was lost after that. "
        "`worker`, `duration` and `queue_time` are there when it ran.",
        ("execution_id", "execution_uuid", "try_id", "task", "queue", "try_number", *_ERROR),
        ("worker", *_TIMES, *_MORE),
    ),
    Event(
        "try_released",
        DEBUG,
        "A try was handed back without a result, which uses up no retry: its worker is ending, or does not know the "
        "task, or its body raised `Snooze`. It is due again after `delay` seconds.",
        (*TRY, *_TIMES, "delay"), ("arguments",),
    ),
    Event(
        "result_kept_as_text",
        WARNING,
        "A body returned what JSON can't hold: only its text was kept.",
        (*TRY, "returned"),
    ),
    Event(
        "settlement_stale",
        WARNING,
        "A body ended after its lease had; its result is not recorded.",
        (*TRY, *_TIMES),
        ("arguments",),
    ),
    Event(
        "lease_lost",
        WARNING,
        "A try that runs here has ended or went to another worker. Its body is stopped where that is possible.",
        TRY,
    ),
    Event(
        "act_failed",
        ERROR,
        "An error that i3tasks did not expect, such as one of a `pre_delete` receiver, kept something from being done "
        "to executions. They are left alone and counted. Said once for each class of errors while a process is at it.",
        ("act", "filter", "error", "exc_info"),
    ),
    Event(
        "executions_acted_on",
        INFO,
        "A user did something to all executions that a filter finds. `skipped` counts the others by the reason.",
        ("act", "filter", "by", "done", "skipped"),
    ),
    Event(
        "tries_lost",
        WARNING,
        "The leases of these tries ran out: their worker is gone. Each is also a `try_failed`, an `execution_failed` "
        "or an `execution_cancelled`.",
        ("executions", "tries"),
    ),
    Event(
        "try_refused",
        DEBUG,
        "A message came for a try that is taken, over, or not due, or whose row stays locked: then it comes again. "
        "`task` is the name in the message.",
        ("execution_id", "try_id", "task", "worker", "reason"),
    ),
    Event(
        "try_unknown",
        ERROR,
        "A message older than ten minutes names a try that is not in the database.",
        ("execution_id", "try_id", "task", "worker", "published"),
    ),
    Event(
        "task_unregistered",
        ERROR,
        "A row names a task that is not registered here. The try is put off for an hour, then it fails.",
        (*TRY, "error"),
    ),
    Event(
        "transaction_left_open",
        ERROR,
        "A body left a database transaction open. It was rolled back, and the try failed.",
        (),
        TRY,
    ),
    Event(
        "exit_contained",
        ERROR,
        "A child task or a callback of a body raised SystemExit or KeyboardInterrupt. The body has failed; the process "
        "goes on.",
        ("error",),
        TRY,
    ),
    Event(
        "callback_broken",
        ERROR,
        "A row holds something else than a call where its callback of failure stands. The callback is not called.",
        ("execution_id", "step"),
    ),
    Event(
        "member_not_counted",
        WARNING,
        "Members of a group have ended for which it has no place: its `total_count` is too low, or it was closed "
        "before. Its callback does not wait for them.",
        ("group_id", "members", "total_count"),
    ),
    # ------------------------------------------------------------------------------------------------------ messages
    Event(
        "envelope_refused",
        ERROR,
        "A message is no i3tasks envelope. Pub/Sub delivers it again, in the end to the dead-letter topic.",
        ("error",),
        ("queue", "message_id", "delivery_attempt", "data"),
    ),
    Event(
        "publish_failed",
        WARNING,
        "A message could not be published. A dispatcher publishes it again. At most once a minute for each topic: "
        "`others` is the number of failures since the last event.",
        ("error",),
        ("execution_id", "try_id", "task", "queue", "topic", "others"),
    ),
    Event(
        "push_queue_quiet",
        WARNING,
        "Tries of a push queue wait that were published `fallback_seconds` ago, and none of it was claimed since. The "
        "oldest are published again.",
        ("queue", "tries"),
    ),
    Event(
        "fallback_begun",
        WARNING,
        "A worker takes tries of the queue from the database, because Pub/Sub does not bring them. Said once for each "
        "stretch of time.",
        ("queue", "why"),
    ),
    Event(
        "broker_unavailable",
        WARNING,
        "Publishing or receiving fails. Said once for each outage.",
        ("what", "error"),
        ("queue", "topic"),
    ),
    Event("broker_recovered", WARNING, "Publishing or receiving works again.", (), ("what", "queue")),
    Event(
        "receiver_broken",
        WARNING,
        "The Pub/Sub client no longer works on the queue's stream (a thread of it has ended, or acks are not sent), or "
        "the stream brought nothing while tries waited. It is opened again.",
        ("queue", "error"),
    ),
    Event(
        "receiver_given_up",
        ERROR,
        "A Pub/Sub client broke five times in a row: the worker drains, and ends with exit code 75.",
        ("queue", "error"),
    ),
    Event(
        "receiver_restarted",
        WARNING,
        "A stream that brought nothing while rows waited was opened anew.",
        ("queue",),
    ),
    Event("provisioned", INFO, "A topic or subscription was created or changed.", ("change",)),
    Event(
        "provisioning_failed",
        WARNING,
        "Topics and subscriptions could not be made or changed.",
        (),
        ("error", "change"),
    ),
    # -------------------------------------------------------------------------------------- the database, requests
    Event(
        "store_unavailable", WARNING, "The database gives no answer. Said once for each outage.", ("error",)
    ),
    Event("store_recovered", WARNING, "The database answers again."),
    Event(
        "rows_locked",
        WARNING,
        "Other transactions have kept rows locked for `seconds` by now. Claims of such tries are given up, and their "
        "messages come again; outcomes and all else wait. At most once a minute: `tries` are some of those that it "
        "is about at the time.",
        ("tries", "seconds"),
    ),
    Event("dispatch_failed", WARNING, "A pass of the dispatcher got no answer from the database.", ("error",)),
    Event(
        "lane_awaited",
        WARNING,
        "ORM calls of coroutines have waited for a database lane for a second, because other coroutines are in "
        "transactions.",
        ("calls", "lanes", "in_transactions"),
    ),
    Event(
        "request_denied",
        WARNING,
        "A push or beat request could not be verified, or is for another host: see [HTTP endpoints](http.md). The "
        "token is never logged.",
        ("path", "status", "reason"),
    ),
    Event(
        "certificates_unavailable",
        WARNING,
        "The certificates that tokens are checked by could not be fetched. With an old copy, requests are verified by "
        "that; without, they are a 503.",
        ("error", "has_copy"),
    ),
    # ----------------------------------------------------------------------------------------------------- schedules
    Event(
        "beat_failed",
        WARNING,
        "A pass over the schedules got no answer from the database. Due slots stay due.", ("error",), ("schedule",),
    ),
    Event("schedule_broken", ERROR, "A schedule can't be run. Said once an hour.", ("schedule", "error")),
    Event(
        "schedule_slots_dropped", WARNING, "More slots were missed than `catch_up` enqueues.", ("schedule", "kept")
    ),
    Event(
        "schedule_ticked",
        INFO,
        "A schedule's due slots were enqueued, the last of them `lateness` seconds after its time.",
        ("schedule", "slots", "executions", "execution_uuids", "cron", "time_zone", "lateness"),
    ),
    Event(
        "schedule_time_refused",
        WARNING,
        "A beat request has an `X-CloudScheduler-ScheduleTime` that can't be read, or lies too far off.",
        ("header",),
    ),
    # --------------------------------------------------------------------------------------------------------- people
    Event(
        "board_acted",
        INFO,
        "A person did `act` on the board, to `count` of what `target` says: an id, a queue, or the filter of all that "
        "matched.",
        ("user", "act", "target", "count"),
    ),
    # ------------------------------------------------------------------------------------------------------- workers
    Event("worker_started", INFO, "A worker begins.", ("queues", "concurrency")),
    Event("worker_draining", INFO, "A worker was asked to stop.", ("running", "at_most_seconds")),
    Event("worker_killed", INFO, "A second signal ended a worker at once.", ("signal",)),
    Event("worker_stopped", INFO, "A worker has ended by itself."),
    Event(
        "process_died",
        ERROR,
        "A process of `run-worker --processes` has ended unasked, and is replaced `pause` seconds later.",
        ("process", "exit_code", "pause"),
    ),
    Event("liveness_file_failed", ERROR, "The liveness file could not be touched.", ("error",)),
    Event("queue_paused", INFO, "A queue was paused: none of its tries begins until it is resumed.", ("queue", "by")),
    Event("queue_resumed", INFO, "A queue was resumed: its waiting tries become due.", ("queue", "by")),
    # ------------------------------------------------------------------------------------------------------- i3tasks
    Event(
        "consumer_failed",
        ERROR,
        "A consumer of events (a metric, a span, a receiver of a signal) raised an error, or fell so far behind that "
        "`dropped` events did not reach it. Said once a minute for each.",
        ("consumer", "others"),
        ("event_name", "error", "dropped", TRACEBACK),
    ),
    Event(
        "internal_error",
        ERROR,
        "An error that i3tasks did not expect. Work goes on; please report it.",
        ("where", "error", TRACEBACK),
        TRY,
    ),
)  # fmt: skip

EVENTS = {event.name: event for event in _ALL}
"""Every event, by its name."""
