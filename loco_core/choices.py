"""Choices that a person makes between a few words.

class Mode(Choice):
    ZERO = "zero"
    SCALE = "scale"

Mode.parse("zero", "mode")   # Mode.ZERO
Mode.parse("one", "mode")    # ValueError: mode: 'one'; give one of zero, scale
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing_extensions import Self


class Choice(str, Enum):
    """A word out of a few. It is written to files, and shown, as that word."""

    def __str__(self) -> str:
        return str(self.value)

    @classmethod
    def words(cls) -> list[str]:
        """All words, the default first."""
        return [choice.value for choice in cls]

    @classmethod
    def parse(cls, word: str, name: str) -> Self:
        """The choice with this word. `name` is the input's, for the error that lists the words there are."""
        try:
            return cls(word)
        except ValueError:
            raise ValueError(f"{name}: {str(word)!r}; give one of {', '.join(cls.words())}") from None
