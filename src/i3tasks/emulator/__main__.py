"""Entry point of `python -m i3tasks.emulator`."""

from .command import main

raise SystemExit(main())
