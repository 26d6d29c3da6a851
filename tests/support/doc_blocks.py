"""The fenced blocks of README, docs, and the READMEs of examples."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BESIDE = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "examples").rglob("README.md"))]
PAGES = [*BESIDE, *sorted((ROOT / "docs").rglob("*.md"))]
_FENCED = re.compile(
    r"^(?P<indent> *)(?:<!-- not run: (?P<reason>[^\n]+?) -->\n\s*)?```(?P<kind>[^\n`]*)\n(?P<text>.*?)^ *```",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Block:
    """One fenced block. `not_run` is the reason that the page gives in a comment above it: `<!-- not run: ... -->`."""

    kind: str
    text: str
    line: int  # of its first line of text, from 1
    not_run: str = ""


@dataclass(frozen=True)
class Page:
    """A page with its blocks."""

    path: Path

    @property
    def name(self) -> str:
        """Its path in the repository."""
        return self.path.relative_to(ROOT).as_posix()

    @cached_property
    def blocks(self) -> list[Block]:
        text = self.path.read_text(encoding="utf-8")
        return [
            Block(
                kind=found["kind"],
                text=_dedent(found["text"], found["indent"]),
                line=text.count("\n", 0, found.start("text")) + 1,
                not_run=found["reason"] or "",
            )
            for found in _FENCED.finditer(text)
        ]

    def of(self, *kinds: str) -> list[Block]:
        """Its blocks of these kinds that are to run."""
        return [block for block in self.blocks if block.kind in kinds and not block.not_run]


def pages() -> list[Page]:
    """Those beside docs, then docs."""
    return [Page(path) for path in PAGES]


def _dedent(text: str, indent: str) -> str:
    return "".join(line.removeprefix(indent) for line in text.splitlines(keepends=True))
