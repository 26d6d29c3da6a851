"""Benchmarks: `python -m tests.benchmarks` measures i3tasks and its peers, `tests.benchmarks.scale` how it grows."""
