"""Tasks that use Google's authentication as a project's own code does. Not discovered, like hostile.py."""

import sys
from typing import Any

from i3tasks import task


@task
def imported(name: str) -> bool:
    return name in sys.modules


@task
def sign(private_key: str, claims: dict[str, Any]) -> str:
    """Sign a token as a service account does."""
    from google.auth import jwt
    from google.oauth2 import service_account

    account = {"private_key": private_key, "client_email": "a@b.example", "token_uri": "http://127.0.0.1:1/"}
    credentials = service_account.Credentials.from_service_account_info(account)
    return bytes(jwt.encode(credentials.signer, claims)).decode()
