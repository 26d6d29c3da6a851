"""The advice about each error, which ends the line that a person reads."""

from __future__ import annotations

_ADVICE = {
    "execution_failed": (
        "`i3tasks status ID` shows its tries, `i3tasks retry ID` gives it one more.",
        "command-line.md",
    ),
    "try_unknown": (
        "Nothing, if the row was deleted on purpose; otherwise look for what restored an older database.",
        "guarantees.md#look-for-yourself",
    ),
    "task_unregistered": (
        "Deploy the code that defines the task, or keep a task under the old name.",
        "troubleshooting.md#unknowntaskerror",
    ),
    "transaction_left_open": ("Let the body use `transaction.atomic()`, which ends what it begins.", "workers.md"),
    "exit_contained": ("Let the body raise an exception instead of ending the process.", "workers.md"),
    "callback_broken": ("Look for what wrote the row: `on_failure` takes a task or a signature.", "workflows.md"),
    "envelope_refused": ("Look for what else publishes to this topic.", "reference/wire.md"),
    "receiver_given_up": (
        "Let a supervisor start another worker.",
        "troubleshooting.md#a-worker-ends-with-exit-code-75",
    ),
    "schedule_broken": (
        "Correct the field that the error names; its slots stay due.",
        "schedules.md#a-schedule-that-can-t-run",
    ),
    "process_died": (
        "Its last lines say why, or the system's log: 137 is `kill -9`, often for want of memory.",
        "workers.md#processes-and-streams",
    ),
    "liveness_file_failed": (
        "Let the worker's user write to the folder of --liveness-file.",
        "workers.md#probes-and-recycling",
    ),
    "consumer_failed": (
        "Mend the receiver or the integration that the line names; tasks are not affected.",
        "observability.md",
    ),
    "act_failed": (
        "Mend what raised it, see by its traceback, and act on what is left again.",
        "board.md#acting-on-all-that-match",
    ),
    "internal_error": ("Please report it, with its traceback.", "troubleshooting.md"),
}


def advice_about(event: str) -> str:
    """The advice, and the page that says more; "" for an event that is no error."""
    if event not in _ADVICE:
        return ""
    what, page = _ADVICE[event]
    return f"{what} See docs/{page}."
