"""What a person is told of a piece of work: first what came of it and what to do, below it the figures."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Report:
    """`result`: lines for a person who never read the paper. `figures`: lines for one who wants to know more."""

    result: tuple[str, ...]
    figures: tuple[str, ...] = ()

    @property
    def brief(self) -> str:
        """The result alone."""
        return "\n".join(self.result)

    def __str__(self) -> str:
        """All of it, with a blank line above the figures."""
        return "\n".join([*self.result, *(["", *self.figures] if self.figures else [])])

    def __add__(self, other: Report) -> Report:
        return Report((*self.result, *other.result), (*self.figures, *other.figures))
