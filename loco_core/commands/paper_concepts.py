"""What the paper asked its models for: styles, objects and facts, each with what takes its place."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ..prompt_lines import LineKind
from ..prompts import Attribute, PromptPair, prompt_pairs


@dataclass(frozen=True)
class PaperConcept:
    """A name, which the paper's templates expand, and its target."""

    attribute: Attribute
    name: str
    target: str

    @property
    def pairs(self) -> tuple[PromptPair, ...]:
        return prompt_pairs(f"{LineKind.NAME}: {self.name}", self.target, self.attribute).pairs

    @property
    def slug(self) -> str:
        """The name of its folder: "style_van_gogh"."""
        return re.sub(r"\W+", "_", f"{self.attribute} {self.name}".lower())


CONCEPTS = (
    PaperConcept(Attribute.STYLE, "Van Gogh", "a painting"),
    PaperConcept(Attribute.STYLE, "Monet", "a painting"),
    PaperConcept(Attribute.OBJECT, "r2d2", "robot"),
    PaperConcept(Attribute.OBJECT, "snoopy", "dog"),
    PaperConcept(Attribute.OBJECT, "nemo", "fish"),
    PaperConcept(Attribute.OBJECT, "cat", "dog"),
    PaperConcept(Attribute.FACT, "President", "Joe Biden"),
    PaperConcept(Attribute.FACT, "Monarch", "Prince Charles"),
)
