"""Draws the states of a try and lists their arrows: `python docs/life_of_a_try.py` writes both where they are shown."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from pathlib import Path

HERE = Path(__file__).parent / "understand"
PICTURE = HERE / "life-of-a-try.svg"
PAGE = HERE / "life-of-a-try.md"
HEAD = ("| arrow | from | to | when | who writes it |", "|---|---|---|---|---|")
WIDTH, HEIGHT = 130, 44


@dataclass(frozen=True)
class State:
    """A box of the picture."""

    x: int
    y: int
    colour: str


@dataclass(frozen=True)
class Arrow:
    """One way from a state to another; `path` is drawn, with the arrow's number at `label`."""

    source: str
    target: str
    when: str
    function: str
    path: str
    label: tuple[int, int]


STATES = {
    "deferred": State(30, 50, "#8a94a6"),
    "due": State(30, 190, "#2f6fde"),
    "published": State(270, 190, "#2f6fde"),
    "running": State(510, 190, "#b7791f"),
    "success": State(740, 50, "#2f855a"),
    "failed": State(740, 190, "#c53030"),
    "cancelled": State(740, 330, "#6b46c1"),
}
ARROWS = (
    Arrow("a call", "due", "`delay`: the call's transaction commits.", "enqueue.enqueue", "M95 310 L95 238", (95, 275)),
    Arrow(
        "a call",
        "deferred",
        "The same, with `run_after` in the future.",
        "enqueue.enqueue",
        "M85 316 C-8 290 -8 130 44 98",
        (14, 210),
    ),
    Arrow("deferred", "due", "Its time has come.", "dispatching.take_due", "M95 94 L95 186", (95, 140)),
    Arrow(
        "due",
        "published",
        "Pub/Sub has confirmed the message.",
        "dispatching.confirm_published",
        "M160 204 L266 204",
        (213, 204),
    ),
    Arrow(
        "published",
        "due",
        "No worker has claimed it within `lost_after_seconds`, so it is published again.",
        "dispatching.take_due",
        "M270 222 L164 222",
        (213, 222),
    ),
    Arrow(
        "published", "running", "A worker claims it: the message came.", "claims.claim", "M400 212 L506 212", (453, 212)
    ),
    Arrow(
        "due",
        "running",
        "A worker takes it from the database: a `DatabaseQueue`, or Pub/Sub brings nothing.",
        "fallback.take_waiting",
        "M140 234 C200 306 470 306 536 238",
        (338, 289),
    ),
    Arrow("running", "success", "The body has returned.", "settle.settle", "M620 190 L740 97", (680, 143)),
    Arrow(
        "running",
        "failed",
        "The body has raised, or has run into its timeout.",
        "settle.settle",
        "M640 204 L736 204",
        (688, 204),
    ),
    Arrow(
        "running",
        "failed",
        "Its lease has run out: the worker died (`WorkerLost`).",
        "expiry.expire_leases",
        "M640 222 L736 222",
        (688, 222),
    ),
    Arrow(
        "running",
        "due",
        "It is handed back: the worker stops, or has no thread for it. This uses up no retry.",
        "settle.settle",
        "M560 234 C480 366 220 366 122 238",
        (341, 334),
    ),
    Arrow(
        "running",
        "deferred",
        "It is put off: the worker does not know the task yet, as in a rolling deployment. This uses up no retry.",
        "settle.settle",
        "M560 190 C490 90 300 66 164 72",
        (360, 92),
    ),
    Arrow(
        "due",
        "cancelled",
        "It is cancelled before it runs, also while it is deferred or published.",
        "cancel.cancel",
        "M108 234 C170 420 560 420 736 366",
        (400, 398),
    ),
    Arrow(
        "running",
        "cancelled",
        "Its execution was cancelled, the worker heard so with a heartbeat, and the body has ended.",
        "settle.settle",
        "M620 234 L742 327",
        (681, 281),
    ),
    Arrow(
        "failed",
        "deferred",
        "A retry is left: *another try*, with its delay, in the transaction that records the failure.",
        "settle.settle",
        "M746 190 C690 4 320 4 130 47",
        (430, 32),
    ),
    Arrow(
        "failed",
        "due",
        "`i3tasks retry`, the admin or the board: *another try*. Also for one that was cancelled.",
        "cancel.retry_failed",
        "M790 374 C700 480 80 490 52 238",
        (455, 436),
    ),
)
STYLE = """
text { font: 13px system-ui, sans-serif; text-anchor: middle; fill: #4a5568; }
.box { font-weight: 600; fill: #fff; } .way { fill: none; stroke: #8a94a6; stroke-width: 1.4; marker-end: url(#tip); }
.tag { fill: #fff; stroke: #8a94a6; } .number { font-size: 11px; }
"""


def picture() -> str:
    """The diagram as SVG."""
    parts = [
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 900 450" width="900" height="450" role="img">',
        "<title>The states of a try, and the arrows between them</title>",
        f"<style>{STYLE}</style>",
        '<marker id="tip" markerWidth="8" markerHeight="8" refX="6" refY="3" orient="auto">'
        '<path d="M0 0 L7 3 L0 6 z" fill="#8a94a6"/></marker>',
        '<rect width="900" height="450" fill="#fff"/>',
        '<circle cx="95" cy="316" r="6" fill="#4a5568"/><text x="130" y="321">a call</text>',
        *(f'<path class="way" d="{arrow.path}"/>' for arrow in ARROWS),
    ]
    for name, state in STATES.items():
        middle = (state.x + WIDTH // 2, state.y + HEIGHT // 2 + 5)
        parts.append(
            f'<rect x="{state.x}" y="{state.y}" width="{WIDTH}" height="{HEIGHT}" rx="6" fill="{state.colour}"/>'
            f'<text class="box" x="{middle[0]}" y="{middle[1]}">{escape(name)}</text>'
        )
    for number, arrow in enumerate(ARROWS, 1):
        x, y = arrow.label
        parts.append(
            f'<circle class="tag" cx="{x}" cy="{y}" r="9"/><text class="number" x="{x}" y="{y + 4}">{number}</text>'
        )
    return "\n".join([*parts, "</svg>"]) + "\n"


def table() -> str:
    """The arrows as they are to stand on the page."""
    rows = [
        f"| {number} | {arrow.source} | {arrow.target} | {arrow.when} | `store.{arrow.function}` |"
        for number, arrow in enumerate(ARROWS, 1)
    ]
    return "\n".join([*HEAD, *rows]) + "\n"


def main() -> None:
    PICTURE.write_text(picture(), encoding="utf-8")
    page = PAGE.read_text(encoding="utf-8")
    begin = page.index(HEAD[0])
    end = page.index("\n\n", begin) + 1
    PAGE.write_text(page[:begin] + table() + page[end:], encoding="utf-8")


if __name__ == "__main__":
    main()
