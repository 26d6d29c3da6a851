"""Brings the table of docs/reference/events.md up to date with the catalogue: `python docs/events_table.py`."""

from __future__ import annotations

from pathlib import Path

from i3tasks.telemetry import EVENTS, TRY, Event

PAGE = Path(__file__).parent / "reference" / "events.md"
HEAD = ("| event | level | fields | what happened |", "|---|---|---|---|")


def table() -> str:
    """The table as it is to stand on the page."""
    return "\n".join([*HEAD, *map(_row, sorted(EVENTS.values(), key=lambda event: event.name))]) + "\n"


def _row(event: Event) -> str:
    return f"| `{event.name}` | {event.level_name} | {_fields(event)} | {event.sentence} |"


def _fields(event: Event) -> str:
    always, sometimes = list(event.fields), list(event.optional)
    said = []
    for fields, form in ((always, "*the try*"), (sometimes, "*the try, where it is about one*")):
        if set(TRY) <= set(fields):
            said.append(form)
            fields[:] = [name for name in fields if name not in TRY]
    said += [f"`{name}`" for name in always] + [f"(`{name}`)" for name in sometimes]
    return ", ".join(said)


if __name__ == "__main__":
    before = PAGE.read_text("utf-8").partition(HEAD[0])[0]
    PAGE.write_text(before + table(), "utf-8")
