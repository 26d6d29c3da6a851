from django.urls import include, path

urlpatterns = [path("i3/", include("django_i3tasks.urls"))]
