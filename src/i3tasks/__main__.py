"""`python -m i3tasks`, the same as the command `i3tasks`."""

from .cli import main

if __name__ == "__main__":
    raise SystemExit(main())
