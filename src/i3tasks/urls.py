"""The endpoints. Include them at any path: `path("i3/", include("i3tasks.urls"))`."""

from django.urls import path

from .views.beat import beat
from .views.monitoring import health, metrics, status
from .views.push import push

urlpatterns = [
    path("tasks-push/", push, name="i3tasks-push"),
    path("tasks-beat/", beat, name="i3tasks-beat"),
    path("tasks-health/", health, name="i3tasks-health"),
    path("tasks-metrics/", metrics, name="i3tasks-metrics"),
    path("tasks-status/<int:id>/", status, name="i3tasks-status"),
    path("tasks-status/<uuid:uuid>/", status, name="i3tasks-status-uuid"),
]
