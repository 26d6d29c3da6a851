"""The picture of a chain with its groups, as SVG whose boxes are links."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.urls import NoReverseMatch, reverse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString, mark_safe

from ..models import TaskExecution
from ..store.lineage import Lineage, Node
from .lines import shown_state
from .navigation import NAMESPACE, url

BOX_WIDTH, BOX_HEIGHT = 176, 46
GAP_X, GAP_Y = 34, 10
LONGEST_LABEL = 23


@dataclass(frozen=True, slots=True)
class Box:
    """A box: two lines of text, the class that colours it, and where it leads; "" leads nowhere."""

    title: str
    note: str
    kind: str
    url: str = ""
    progress: float | None = None


def picture(execution: TaskExecution, state: str, lineage: Lineage, now: datetime) -> SafeString:
    """Draw the steps and groups before and after the execution, from left to right."""
    this = [Box(execution.task_name, f"#{execution.pk} · {state}", f"this is-{state}")]
    columns = [
        *([[Box("…", "earlier steps", "planned")]] if lineage.more_before else []),
        *(_column(node, now, execution.pk) for node in lineage.before),
        this,
        *(_column(node, now, execution.pk) for node in lineage.after),
        *([[Box("…", "further steps", "planned")]] if lineage.more_after else []),
    ]
    return _drawn(columns)


def _column(node: Node, now: datetime, this: int) -> list[Box]:
    if node.execution is not None:
        return [_of_execution(node.execution, now)]
    if node.group is None:
        return [Box(node.label, "to come", "planned")]
    group = node.group
    ended = group.completed_count + group.failed_count
    failed = f", {group.failed_count} failed" if group.failed_count else ""
    head = Box(
        node.label,
        f"{group.completed_count} of {group.total_count}{failed}",
        f"group is-{group.status}",
        _url_of_group(group.pk),
        ended / group.total_count if group.total_count > 0 else None,
    )
    members = [_of_execution(member, now) for member in node.members if member.pk != this]
    rest = group.total_count - len(node.members)
    return [head, *members, *([Box(f"and {rest} more", "", "planned")] if members and rest > 0 else [])]


def _of_execution(execution: Any, now: datetime) -> Box:
    latest = execution.latest[0] if execution.latest else None
    state = shown_state(execution, latest, now)
    return Box(execution.task_name, f"#{execution.pk} · {state}", f"is-{state}", url("execution", execution.pk))


def _url_of_group(pk: int) -> str:
    try:
        return reverse(f"{NAMESPACE}:group", args=[pk])
    except NoReverseMatch:
        return ""


def _drawn(columns: Sequence[Sequence[Box]]) -> SafeString:
    width = len(columns) * (BOX_WIDTH + GAP_X) - GAP_X + 4
    height = max(len(column) for column in columns) * (BOX_HEIGHT + GAP_Y) - GAP_Y + 4
    boxes = [
        _box(box, 2 + number * (BOX_WIDTH + GAP_X), 2 + place * (BOX_HEIGHT + GAP_Y))
        for number, column in enumerate(columns)
        for place, box in enumerate(column)
    ]
    middle = 2 + BOX_HEIGHT // 2
    arrows = format_html_join(
        "",
        '<path class="arrow" d="M{} {}h{}m-6 -4l6 4l-6 4"/>',
        ((2 + (n + 1) * BOX_WIDTH + n * GAP_X + 3, middle, GAP_X - 6) for n in range(len(columns) - 1)),
    )
    return format_html(
        '<svg class="graph" width="{w}" height="{h}" viewBox="0 0 {w} {h}" role="group" '
        'aria-label="The chain and its groups">{arrows}{boxes}</svg>',
        w=width,
        h=height,
        arrows=arrows,
        boxes=mark_safe("".join(boxes)),  # noqa: S308 - each was escaped by format_html
    )


def _box(box: Box, x: int, y: int) -> SafeString:
    bar = mark_safe("")
    if box.progress is not None:
        form = '<rect class="track" x="{0}" y="{1}" width="{2}" height="4" rx="2"/>' + (
            '<rect class="done" x="{0}" y="{1}" width="{3:.1f}" height="4" rx="2"/>'
        )
        whole = BOX_WIDTH - 16
        bar = format_html(
            form.replace("{3:.1f}", "{3}"), x + 8, y + BOX_HEIGHT - 7, whole, f"{whole * box.progress:.1f}"
        )
    drawn = format_html(
        '<g class="box {kind}"><title>{title} {note}</title><rect x="{x}" y="{y}" width="{w}" height="{h}" rx="8"/>'
        '<text class="name" x="{tx}" y="{ty}">{label}</text><text x="{tx}" y="{ny}">{note}</text>{bar}</g>',
        kind=box.kind,
        title=box.title,
        note=box.note,
        x=x,
        y=y,
        w=BOX_WIDTH,
        h=BOX_HEIGHT,
        tx=x + 10,
        ty=y + 18,
        ny=y + 34,
        label=_short(box.title),
        bar=bar,
    )
    return format_html('<a href="{}">{}</a>', box.url, drawn) if box.url else drawn


def _short(text: str) -> str:
    return text if len(text) <= LONGEST_LABEL else f"{text[: LONGEST_LABEL - 1]}…"
