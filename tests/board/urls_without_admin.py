from django.urls import include, path

urlpatterns = [path("i3/board/", include("i3tasks.dashboard.urls"))]
