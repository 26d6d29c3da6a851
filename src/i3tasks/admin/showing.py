"""Rows as text and links."""

from __future__ import annotations

import json
from typing import Any

from django.core.serializers.json import DjangoJSONEncoder
from django.db.models import Model
from django.urls import reverse
from django.utils.html import format_html
from django.utils.text import Truncator

from ..models import TaskExecutionTry

LONGEST_CALL = 300


def link(model: type[Model], pk: Any, text: str = "") -> str:
    """A link to the page of a row."""
    url = reverse(f"admin:i3tasks_{model._meta.model_name}_change", args=[pk])
    return format_html('<a href="{}">{}</a>', url, text or pk)


def short_result(task_try: TaskExecutionTry) -> str:
    """A try's return value, or its error's text, cut; "" without a result. Its relation `result` should be loaded."""
    result = getattr(task_try, "result", None)
    if result is None:
        return ""
    from ..store.status import shown_result

    text = Truncator(json.dumps(shown_result(task_try), cls=DjangoJSONEncoder)).chars(200)
    return f"{text} (the text of a {result.text_of})" if result.text_of else text


def call(module_name: str, func_name: str, args: Any, kwargs: Any) -> str:
    """`shop.tasks.send_email(1, subject='x')`, cut. Sensitive arguments are hidden."""
    from ..store.concealing import call_text  # late: every process with an admin imports this module

    try:
        text = call_text(module_name, func_name, args, kwargs)
    except RecursionError:
        text = "arguments that are nested too deeply to be shown"
    return f"{module_name}.{func_name}({Truncator(text).chars(LONGEST_CALL)})"


def steps(value: Any) -> str:
    """The steps of a chain, in their order; "" without any."""
    return ", then ".join(step(one) for one in value) if isinstance(value, list) else ""


def step(value: Any) -> str:
    """A step as a call, or as a group of so many members; "" for none."""
    if not isinstance(value, dict):
        return ""
    if isinstance(value.get("group"), dict):
        members = value["group"].get("members")
        return f"a group of {len(members) if isinstance(members, list) else '?'}"
    names = str(value.get("module_name", "?")), str(value.get("func_name", "?"))
    return call(*names, value.get("args") or [], value.get("kwargs") or {})
