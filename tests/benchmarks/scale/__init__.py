"""How i3tasks grows: `python -m tests.benchmarks.scale`. Minutes to hours; outside the default suite."""
