"""Events on the terminal of a command."""

from __future__ import annotations

import logging


def show_events(verbosity: int) -> None:
    """Events on stderr, unless the project's LOGGING has its own place for them."""
    logger = logging.getLogger("i3tasks")
    if not logger.hasHandlers():
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        logger.addHandler(handler)
        logger.setLevel({0: logging.ERROR, 1: logging.INFO}.get(verbosity, logging.DEBUG))
