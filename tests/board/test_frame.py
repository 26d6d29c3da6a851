"""The frame of the board: who may see it, how it is linked together, and that an empty database is no error."""

from collections.abc import Callable
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.test import Client
from django.urls import reverse
from django.urls.converters import IntConverter, PathConverter, SlugConverter, StringConverter

from i3tasks.dashboard.places import PLACES
from i3tasks.dashboard.urls import urlpatterns

pytestmark = pytest.mark.django_db

OVERVIEW = "/i3/board/"
SOME: dict[Any, Any] = {IntConverter: 1, StringConverter: "some", SlugConverter: "some", PathConverter: "a/b"}


def test_visitors_who_are_not_signed_in_are_sent_to_the_admins_login(client: Client) -> None:
    response = client.get(OVERVIEW, {"a": "b"})

    assert response.status_code == 302
    assert response["Location"] == "/admin/login/?next=/i3/board/%3Fa%3Db"


def test_without_an_admin_it_is_the_projects_login(client: Client, settings: Any) -> None:
    settings.ROOT_URLCONF = "tests.board.urls_without_admin"
    settings.LOGIN_URL = "/sign-in/"

    assert client.get(OVERVIEW)["Location"] == "/sign-in/?next=/i3/board/"


@pytest.mark.parametrize(
    ("names", "is_staff", "status"),
    [
        ((), True, 403),
        (("act_on_board", "view_arguments"), True, 403),
        (("view_board",), False, 403),
        (("view_board",), True, 200),
    ],
)
def test_it_asks_for_staff_with_the_permission(
    staff: Callable[..., Client], names: tuple[str, ...], is_staff: bool, status: int
) -> None:
    assert staff(*names, is_staff=is_staff).get(OVERVIEW).status_code == status


def test_every_view_is_guarded(client: Client) -> None:
    """Without a login nothing is shown and nothing done, by any method."""
    for pattern in urlpatterns:
        names = {name: SOME[type(converter)] for name, converter in pattern.pattern.converters.items()}
        address = reverse(f"i3tasks-board:{pattern.name}", kwargs=names)
        answers = {client.get(address).status_code, client.post(address).status_code}
        assert answers <= {302, 405}, address


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.name)
def test_an_empty_database_is_no_error(admin_client: Client, place: Any) -> None:
    response = admin_client.get(place.url)
    text = response.content.decode()

    assert response.status_code == 200
    assert text.count('aria-current="page"') >= 1
    assert f'<a href="{place.url}" aria-current="page">{place.label}</a>' in text
    assert "no-cache" in response["Cache-Control"]


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.name)
def test_pages_hold_no_script_or_style_of_their_own(admin_client: Client, place: Any) -> None:
    text = admin_client.get(place.url).content.decode()

    assert "<style" not in text
    assert " style=" not in text
    assert " onclick=" not in text
    assert all(' src="' in tag for tag in text.split("<script")[1:])
    assert django_settings.STATIC_URL in text
