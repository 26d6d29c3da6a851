"""A module that no test may get imported."""

raise SystemExit("imported")
