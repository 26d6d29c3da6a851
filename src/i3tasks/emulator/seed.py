"""Topics and subscriptions that the emulator creates at its start.

A seed file is TOML (or JSON of the same shape):

    project = "demo"                      # for names without one

    [[topics]]
    name = "mail"

    [[subscriptions]]
    name = "mail-worker"
    topic = "mail"
    ack_deadline_seconds = 30
    push_config = { push_endpoint = "http://127.0.0.1:8000/push/" }

All other keys are the fields of google.pubsub.v1's Topic and Subscription; durations are written "600s".
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..exceptions import I3TasksError

Item = str | Mapping[str, Any]
"""A name, or fields with `name` among them."""


class SeedError(I3TasksError):
    """The seed does not describe topics and subscriptions. See the documentation of `--seed`."""


@dataclass(frozen=True, slots=True)
class Seed:
    """The topics and subscriptions to create. Names are full (`projects/P/topics/T`), or short with a `project`."""

    topics: Iterable[Item] = ()
    subscriptions: Iterable[Mapping[str, Any]] = ()
    project: str = ""

    @classmethod
    def read(cls, path: Path) -> Seed:
        """Read a seed from a TOML or JSON file."""
        import tomllib  # here, because workers import this module and read no seed

        kind = "JSON" if path.suffix == ".json" else "TOML"
        try:
            text = path.read_text(encoding="utf-8")
            content = json.loads(text) if kind == "JSON" else tomllib.loads(text)
        except OSError as error:
            raise SeedError(f"Can't read the seed {path}: {error.strerror}. Check the path.") from error
        except ValueError as error:
            raise SeedError(f"The seed {path} is not valid {kind}: {error}.") from error
        return cls.from_content(content)

    @classmethod
    def from_content(cls, content: Mapping[str, Any]) -> Seed:
        """Make a seed from the content of a file."""
        unknown = set(content) - {"project", "topics", "subscriptions"}
        if unknown:
            raise SeedError(f"The seed has {sorted(unknown)}; it may have project, topics and subscriptions.")
        return cls(content.get("topics", ()), content.get("subscriptions", ()), content.get("project", ""))

    def as_json(self) -> str:
        """Write the seed as the text of a JSON file."""
        content = {"project": self.project, "topics": list(self.topics), "subscriptions": list(self.subscriptions)}
        return json.dumps(content)

    def full_topics(self) -> list[dict[str, Any]]:
        """The topics' fields, with full names."""
        return [self._full(item, name="topics") for item in self.topics]

    def full_subscriptions(self) -> list[dict[str, Any]]:
        """The subscriptions' fields, with full names."""
        return [self._full(item, name="subscriptions", topic="topics") for item in self.subscriptions]

    def _full(self, item: Item, **kinds: str) -> dict[str, Any]:
        if not isinstance(item, str | Mapping):
            raise SeedError(f"The seed has {item!r} in the place of a name, or of a table with a name.")
        fields: dict[str, Any] = {"name": item} if isinstance(item, str) else dict(item)
        for key, kind in kinds.items():
            fields[key] = self._full_name(str(fields.get(key, "")), kind)
        letters = fields.get("dead_letter_policy")
        if isinstance(letters, Mapping) and "dead_letter_topic" in letters:
            topic = self._full_name(str(letters["dead_letter_topic"]), "topics")
            fields["dead_letter_policy"] = {**letters, "dead_letter_topic": topic}
        return fields

    def _full_name(self, name: str, kind: str) -> str:
        return name if "/" in name or not self.project else f"projects/{self.project}/{kind}/{name}"
