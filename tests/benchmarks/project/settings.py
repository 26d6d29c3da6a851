"""Django's settings of a measure: plain ones, and the contestant's own part."""

from tests.benchmarks.harness.contestant import contestant_class  # workers import this, too
from tests.benchmarks.harness.measure import Measure

SECRET_KEY = "benchmark"
DEBUG = False
ALLOWED_HOSTS = ["127.0.0.1"]
USE_TZ = True
TIME_ZONE = "UTC"
INSTALLED_APPS: list[str] = []
MIDDLEWARE: list[str] = []  # none, and no templates, so that push views are measured alone
SILENCED_SYSTEM_CHECKS = ["admin.E403", "admin.E404", "admin.E408", "admin.E409", "admin.E410"]
ROOT_URLCONF = "tests.benchmarks.project.urls"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"console": {"class": "logging.StreamHandler"}},
    "root": {"handlers": ["console"], "level": "WARNING"},
}

_measure = Measure.current()
globals().update(contestant_class(_measure.contestant)(_measure).settings())
