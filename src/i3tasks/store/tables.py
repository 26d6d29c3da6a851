"""New rows by columns: most columns of calls that are written together have one value, which is handled once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import repeat
from typing import Any

Columns = dict[str, Any]
"""Values by the names of a model's attributes."""
MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Table:
    """The columns of rows."""

    count: int
    shared: Columns
    """The values that are the same in all rows."""
    own: dict[str, Sequence[Any]]
    """The values of the other columns, one for each row."""
    spaced: dict[str, datetime]
    """Instants that are a microsecond apart, so that rows have an order: those of the last row."""

    @classmethod
    def of(cls, columns: Mapping[str, Sequence[Any]], same: Columns, spaced: dict[str, datetime]) -> Table:
        """The table of these columns, which are equally long, and not empty; and of `same`, one value for all rows."""
        shared = {name: values[0] for name, values in columns.items() if _is_one(values)}
        own = {name: values for name, values in columns.items() if name not in shared}
        return cls(len(next(iter(columns.values()))), {**same, **shared}, own, spaced)

    def row(self, place: int) -> Columns:
        """The values of the row at that place."""
        own = {name: values[place] for name, values in self.own.items()}
        return {**self.shared, **own, **{name: self._instant(last, place) for name, last in self.spaced.items()}}

    def column(self, name: str) -> Sequence[Any]:
        """The values of the column, one for each row."""
        if name in self.spaced:
            return [self._instant(self.spaced[name], place) for place in range(self.count)]
        return self.own[name] if name in self.own else [*repeat(self.shared[name], self.count)]

    def _instant(self, last: datetime, place: int) -> datetime:
        return last - (self.count - 1 - place) * MICROSECOND


def _is_one(values: Sequence[Any]) -> bool:
    """Whether the values are one object, or equally empty. Others may be equal and not the same: 1, 1.0 and True."""
    if len(set(map(id, values))) == 1:
        return True
    return isinstance(values[0], (list, dict)) and not any(values) and len(set(map(type, values))) == 1
