"""Metrics for Prometheus: `pip install 'i3tasks[prometheus]'`.

`counters` counts what happens in this process, from its events; `gauges` reads from the rows what holds for all of
them; `rendering` writes both in the format that Prometheus reads, and `serving` answers on a port of a worker's own.
"""
