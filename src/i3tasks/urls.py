"""Include this where you like: `path("i3/", include("i3tasks.urls"))`."""

from django.urls import path

from . import views

urlpatterns = [
    path("tasks-push/", views.push, name="i3tasks-push"),
    path("tasks-beat/", views.beat, name="i3tasks-beat"),
]
