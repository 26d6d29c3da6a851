"""Members of staff, for the tests of the board."""

from collections.abc import Callable

import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client


@pytest.fixture
def staff() -> Callable[..., Client]:
    """A client of a member of staff who has these permissions."""

    def signed_in(*names: str, is_staff: bool = True, **options: bool) -> Client:
        user = User.objects.create_user("ann", password="x", is_staff=is_staff)
        user.user_permissions.set(Permission.objects.filter(codename__in=names))
        client = Client(**options)
        client.force_login(user)
        return client

    return signed_in
