"""The settings of that site."""

from collections.abc import Callable

from django.http import HttpRequest, HttpResponse

from tests.process_settings import *  # noqa: F403
from tests.process_settings import MIDDLEWARE as _MIDDLEWARE

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'"
)
MIDDLEWARE = ["tests.browser.settings.strict", *_MIDDLEWARE]
STATIC_URL = "/static/"


def strict(get_response: Callable[[HttpRequest], HttpResponse]) -> Callable[[HttpRequest], HttpResponse]:
    def answer(request: HttpRequest) -> HttpResponse:
        response = get_response(request)
        response["Content-Security-Policy"] = POLICY
        return response

    return answer
