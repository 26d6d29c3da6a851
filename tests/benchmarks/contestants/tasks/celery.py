from celery import Celery

from ...harness.bodies import BODIES
from ...harness.measure import Measure
from ..celery import Contestant

app = Celery("bench", broker=Contestant(Measure.current()).redis_url(3))
app.conf.update(
    result_backend="django-db",
    task_ignore_result=False,
    worker_hijack_root_logger=False,
    broker_connection_retry_on_startup=True,
    task_default_queue=Measure.current().run_id,
    CELERY_DB_REUSE_MAX=10**9,
)

TASKS = {
    name: app.task(name=name)(body) for name, body in BODIES.items() if name.endswith("sync") and "async" not in name
}
