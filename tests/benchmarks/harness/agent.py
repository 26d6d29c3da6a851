"""Takes one measure, in a process of the contestant's own environment, and prints it as a line of JSON."""

from __future__ import annotations

import json
import os
import sys
import traceback
from typing import Any

from .contestant import contestant_class
from .measure import Measure
from .workloads import RUN

ANSWER = "MEASURED "


def take(measure: Measure) -> dict[str, Any]:
    """The figures, or `error`."""
    contestant = contestant_class(measure.contestant)(measure)
    try:
        contestant.setup()
        return RUN[measure.workload](contestant)
    except Exception as error:
        traceback.print_exc()
        return {"error": f"{type(error).__name__}: {error}"}
    finally:
        contestant.teardown()


def main() -> None:
    import django

    django.setup()
    print(ANSWER + json.dumps(take(Measure.current())), flush=True)
    sys.stderr.flush()
    os._exit(0)  # without waiting for the threads of the peers


if __name__ == "__main__":
    main()
