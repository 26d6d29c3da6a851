"""The findings of the doctor."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """Something to mend: where it is, what is wrong, what to do."""

    where: str
    problem: str
    cure: str
    can_be_fixed: bool = False
    """Whether `--fix` does it."""

    def __str__(self) -> str:
        return f"{self.where}: {self.problem} {self.cure}"
