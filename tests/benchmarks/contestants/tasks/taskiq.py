from taskiq_redis import ListQueueBroker, RedisAsyncResultBackend

from ...harness.bodies import BODIES
from ...harness.measure import Measure
from ..taskiq import Contestant

_urls = Contestant(Measure.current()).redis_url
broker = ListQueueBroker(_urls(4), queue_name="bench").with_result_backend(RedisAsyncResultBackend(_urls(5)))

TASKS = {name: broker.task(task_name=name)(body) for name, body in BODIES.items() if name.endswith("async")}
