"""Tags and filters for the templates of the board: `{% load i3tasks_board %}`."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django import template
from django.utils.html import format_html
from django.utils.safestring import SafeString

from ..dashboard import writing
from ..dashboard.navigation import url

register = template.Library()
register.filter("span", writing.span)
register.filter("number", writing.number)
register.filter("instant", writing.instant)


@register.simple_tag
def board_url(name: str, *args: Any, **query: Any) -> str:
    """`{% board_url "execution" row.pk %}`; named arguments go into the query, without those that are empty."""
    return url(name, *args, **{key: value for key, value in query.items() if value not in (None, "")})


@register.simple_tag
def board_link(text: str, name: str, **query: Any) -> SafeString | str:
    """The text as a link to a page of the bar; only the text, if there is none of that name."""
    from ..dashboard.places import link  # with the page: the system checks import this module

    address = link(name, **query)
    return format_html('<a href="{}">{}</a>', address, text) if address else text


@register.simple_tag(takes_context=True)
def ago(context: Any, value: datetime | None) -> SafeString | str:
    """A time as its distance from now, with the full time as its title."""
    if value is None:
        return ""
    text = writing.relative(value, context["now"])
    return format_html('<time datetime="{}" title="{}">{}</time>', value.isoformat(), writing.instant(value), text)


@register.simple_tag
def state(name: str) -> SafeString:
    """The badge of a state: its colour says nothing that its word does not."""
    return format_html('<span class="state state-{}">{}</span>', name, name)
