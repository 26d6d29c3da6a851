from django.contrib import admin
from django.urls import include, path

urlpatterns = [
    path("i3/board/", include("i3tasks.dashboard.urls")),
    path("i3/", include("i3tasks.urls")),
    path("admin/", admin.site.urls),
]
