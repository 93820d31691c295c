"""Choices that a person makes between a few words.

    class Mode(Choice):
        ZERO = "zero"
        SCALE = "scale"

    Mode.parse("zero", "mode")   # Mode.ZERO
    Mode.parse("one", "mode")    # ValueError: mode: 'one'; give one of zero, scale

Functions that take a choice take its word too.
"""

from __future__ import annotations

from collections.abc import Iterable
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
        check_one_of(word, cls.words(), name)
        return cls(word)

    @classmethod
    def parse_field(cls, owner: object, name: str, shown: str = "") -> None:
        """Turns the word in a field of a frozen dataclass into the choice. `shown`: another name, for the error."""
        object.__setattr__(owner, name, cls.parse(getattr(owner, name), shown or name.replace("_", " ")))


def check_one_of(value: object, options: Iterable[object], name: str) -> None:
    """An error that lists the options where the value is none of them. `name` is the input's."""
    words = [str(option) for option in options]
    if str(value) not in words:
        given = str(value) if isinstance(value, str) else value
        raise ValueError(f"{name}: {given!r}; give one of {', '.join(words)}")
