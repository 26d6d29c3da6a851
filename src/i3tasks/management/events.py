"""Events in the output of a command: text on a terminal, JSON lines elsewhere."""

from __future__ import annotations

import logging
import os
import sys
from typing import TextIO

from ..conf import get_config
from ..telemetry import CloudLoggingFormatter, ConsoleFormatter, TaskFilter, lines, subscribe
from .tally import Tally

TERMINAL_VARIABLE = "I3TASKS_ON_TERMINAL"
"""Tells a process that what it writes into a pipe is shown on a terminal."""


def show_events(verbosity: int) -> None:
    """Write events to stderr, unless the project's LOGGING or structlog has its own place for them.

    By default, each try that succeeds has a line, too, as long as there are few of them.
    """
    if lines.has_place():
        return
    handler = logging.StreamHandler()
    handler.addFilter(TaskFilter())
    handler.setFormatter(_formatter(get_config().settings.log_format, sys.stderr))
    lines.LOGGER.addHandler(handler)
    lines.LOGGER.setLevel({0: logging.ERROR, 1: logging.INFO}.get(verbosity, logging.DEBUG))
    if verbosity == 1:
        subscribe(Tally(handler), ["try_succeeded"])


def _formatter(wanted: str, stream: TextIO) -> logging.Formatter:
    is_terminal = stream.isatty() or TERMINAL_VARIABLE in os.environ
    if wanted == "json" or (wanted == "auto" and not is_terminal):
        return CloudLoggingFormatter(get_config().pubsub.project_id)
    colours = is_terminal and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"
    return ConsoleFormatter(colours=colours)
