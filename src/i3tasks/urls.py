"""Include this where you like: `path("i3/", include("i3tasks.urls"))`."""

from django.urls import path

from . import probes, views

urlpatterns = [
    path("tasks-push/", views.push, name="i3tasks-push"),
    path("tasks-beat/", views.beat, name="i3tasks-beat"),
    path("tasks-health/", probes.health, name="i3tasks-health"),
    path("tasks-status/<int:id>/", probes.status, name="i3tasks-status"),
    path("tasks-status/<uuid:uuid>/", probes.status, name="i3tasks-status-uuid"),
]
