from django_i3tasks.utils import TaskDecorator

from ...harness import bodies
from ...harness.measure import Measure
from ..django_i3tasks import Contestant

_queue = Contestant(Measure.current()).queue


def noop_sync(index: int) -> int:
    return bodies.noop_sync(index)


def io_sync(index: int) -> int:
    return bodies.io_sync(index)


noop_sync = TaskDecorator(noop_sync, topic_name=_queue, subscription_name=_queue)
io_sync = TaskDecorator(io_sync, topic_name=_queue, subscription_name=_queue)
TASKS = {"noop_sync": noop_sync, "io_sync": io_sync}
