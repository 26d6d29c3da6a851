"""Metrics for Prometheus: `pip install 'i3tasks[prometheus]'`.

`counters` counts the events of this process; `gauges` reads figures of all processes from the rows; `rendering` writes
both in the format that Prometheus reads, and `serving` answers on a port of a worker's own.
"""
