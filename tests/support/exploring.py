"""How many examples a property test looks at, and whether they are new ones.

A plain run looks at the same examples each time, so that a newcomer's first run passes as the last one here did. With
I3TASKS_EXAMPLES=40 it looks at forty times as many, chosen at random. `python -m tests.explore` does that.
"""

import os

MULTIPLIER = int(os.environ.get("I3TASKS_EXAMPLES") or 0)
EXPLORES = MULTIPLIER > 0


def examples(count: int) -> int:
    """`count`, times I3TASKS_EXAMPLES: for the `max_examples` of a test that sets its own."""
    return count * max(MULTIPLIER, 1)
