"""Runs a module as `python -m` does, and ends it when its supervisor is gone.

    python -m i3tasks.management.developing.tethered django runserver

For programs that know nothing of a supervisor, such as `runserver` and uvicorn: none of them outlives `i3tasks dev`.
"""

import runpy
import sys

from ..supervising import end_with_supervisor


def main() -> None:
    end_with_supervisor()
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
