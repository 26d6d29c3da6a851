"""The shop's URLs."""

from django.urls import include, path

from .views import place_order, ready

urlpatterns = [
    path("orders/", place_order),
    path("ready/", ready),
    path("i3/", include("i3tasks.urls")),
]
