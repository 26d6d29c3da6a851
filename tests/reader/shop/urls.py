"""The reader's site."""

from django.http import HttpRequest, HttpResponse
from django.urls import include, path

from shop.tasks import send_welcome


def signup(request: HttpRequest) -> HttpResponse:
    send_welcome.delay(request.POST["email"])
    return HttpResponse("Welcome")


urlpatterns = [path("signup/", signup), path("i3/", include("i3tasks.urls"))]
