"""Names of topics and subscriptions: `projects/{project}/topics/{id}` and `projects/{project}/subscriptions/{id}`."""

from __future__ import annotations

import re

from .status_errors import invalid

DELETED_TOPIC = "_deleted-topic_"
"""Value of a subscription's `topic` after its topic was deleted."""

_NAME = re.compile(r"projects/(?P<project>[^/\s]{1,255})/(?P<kind>[a-z]+)/(?P<id>[^/]*)")
_ID = re.compile(r"[A-Za-z][A-Za-z0-9._~+%-]{2,254}")


def _check(name: str, kind: str) -> str:
    match = _NAME.fullmatch(name)
    if match is None or match["kind"] != kind:
        raise invalid(f"Invalid name {name[:300]!r}: it must look like projects/PROJECT/{kind}/ID.")
    if _ID.fullmatch(match["id"]) is None or match["id"].startswith("goog"):
        raise invalid(
            f"Invalid name {name[:300]!r}: the id must have 3 to 255 of the characters A-Z a-z 0-9 - _ . ~ + %, "
            "start with a letter, and not start with 'goog'."
        )
    return name


def topic_name(name: str) -> str:
    """Check the full name of a topic and return it. Raises StatusError."""
    return _check(name, "topics")


def subscription_name(name: str) -> str:
    """Check the full name of a subscription and return it. Raises StatusError."""
    return _check(name, "subscriptions")


def project_prefix(project: str) -> str:
    """Give the prefix `projects/P/` of names for a request's `projects/P`."""
    if re.fullmatch(r"projects/[^/\s]{1,255}", project) is None:
        raise invalid(f"Invalid project {project[:300]!r}: it must look like projects/PROJECT.")
    return f"{project}/"


def project_of(name: str) -> str:
    """The project in a resource's name."""
    return name.split("/", 2)[1]


def last_part(name: str) -> str:
    """The id in a resource's name."""
    return name.rsplit("/", 1)[-1]
