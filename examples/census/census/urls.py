from django.urls import include, path

from census import views

urlpatterns = [
    path("census/", views.start, name="start"),
    path("source/", views.source, name="source"),
    path("i3/", include("i3tasks.urls")),
]
