"""The endpoints. Include them at any path: `path("i3/", include("i3tasks.urls"))`."""

from functools import partial

from django.urls import path

from .views.later import later_async

_monitoring = partial(later_async, "i3tasks.views.monitoring")

urlpatterns = [
    path("tasks-push/", later_async("i3tasks.views.push", "push"), name="i3tasks-push"),
    path("tasks-beat/", later_async("i3tasks.views.beat", "beat"), name="i3tasks-beat"),
    path("tasks-health/", _monitoring("health"), name="i3tasks-health"),
    path("tasks-metrics/", _monitoring("metrics"), name="i3tasks-metrics"),
    path("tasks-status/<int:id>/", _monitoring("status"), name="i3tasks-status"),
    path("tasks-status/<uuid:uuid>/", _monitoring("status"), name="i3tasks-status-uuid"),
]
