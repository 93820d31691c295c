"""What a person is told of a piece of work: first what came of it and what to do, below it the figures."""

from __future__ import annotations

from dataclasses import dataclass

# What a line begins with that a person must not miss.
WARNING = "WARNING"


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
        """Both, warnings before all else: a node may have no room for all lines."""
        result = sorted((*self.result, *other.result), key=lambda line: not line.startswith(WARNING))
        return Report(tuple(result), (*self.figures, *other.figures))


def percent(share: float) -> str:
    """A share as a person says it, without a minus before 0."""
    return f"{round(share, 2) + 0.0:.0%}"
