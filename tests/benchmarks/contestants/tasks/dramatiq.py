import dramatiq
from dramatiq.brokers.redis import RedisBroker
from dramatiq.middleware.asyncio import AsyncIO
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend

from ...harness.bodies import BODIES
from ...harness.measure import Measure
from ..dramatiq import Contestant

_urls = Contestant(Measure.current()).redis_url
_broker = RedisBroker(url=_urls(6))
_broker.add_middleware(Results(backend=RedisBackend(url=_urls(7)), store_results=True))
_broker.add_middleware(AsyncIO())
dramatiq.set_broker(_broker)

TASKS = {name: dramatiq.actor(body, actor_name=name) for name, body in BODIES.items()}
