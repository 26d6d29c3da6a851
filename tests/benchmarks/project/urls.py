"""The views of contestants that are pushed to, and the admin where it is installed."""

from django.apps import apps
from django.conf import settings
from django.contrib import admin
from django.urls import include, path

urlpatterns = [path(prefix, include(module)) for prefix, module in getattr(settings, "BENCH_URLS", {}).items()]
if apps.is_installed("django.contrib.admin"):
    urlpatterns.append(path("admin/", admin.site.urls))
