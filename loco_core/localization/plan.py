"""What a search is to do."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from ..models.engine import Sampling
from ..models.layers import PARTS, LayerSet, windows
from ..prompts import ATTRIBUTES, PromptPair
from .strategies import EFFORTS, affordable, first_round, quick_steps

AUTO = 0
"""The window size that stands for: find it."""
LARGE = 24
"""From this many layers on, an automatic search begins with windows of 3, else of 2: the paper's sizes."""


@dataclass(frozen=True)
class SearchPlan:
    """Which windows to try on which images: `window_size` layers, AUTO to find the size; every pair x every seed.

    `effort`: one of EFFORTS. `part`: what of the layers reads the target, one of PARTS.
    """

    pairs: tuple[PromptPair, ...]
    seeds: tuple[int, ...]
    attribute: str
    window_size: int
    sampling: Sampling
    effort: str = "balanced"
    part: str = PARTS[0]

    def __post_init__(self) -> None:
        if self.attribute not in ATTRIBUTES:
            raise ValueError(f"attribute: {self.attribute!r}; give one of {', '.join(ATTRIBUTES)}")
        if not self.pairs:
            raise ValueError("concept prompts: empty; give at least one line")
        if not self.seeds:
            raise ValueError("seeds: 0; give at least 1")
        if self.effort not in EFFORTS:
            raise ValueError(f"effort: {self.effort!r}; give one of {', '.join(EFFORTS)}")
        if self.part not in PARTS:
            raise ValueError(f"part: {self.part!r}; give one of {', '.join(PARTS)}")

    @cached_property
    def images(self) -> tuple[tuple[PromptPair, int], ...]:
        """The pair and seed of every image of a window: one of each pair, then the next seed."""
        return tuple((pair, seed) for seed in self.seeds for pair in self.pairs)

    @property
    def sign(self) -> int:
        """Of a wanted change of the score: a style or an object goes away, a new fact appears."""
        return 1 if self.attribute == "fact" else -1

    @property
    def steps(self) -> int:
        """Of the images by which windows are compared."""
        return self.sampling.steps if self.effort == "exhaustive" else quick_steps(self.sampling.steps)

    def scored_text(self, pair: PromptPair) -> str:
        """The prompt an image is scored against: the target of a fact, else the concept."""
        return pair.target if self.attribute == "fact" else pair.concept

    def windows(self, layer_count: int) -> list[LayerSet]:
        """The windows to try in a model of so many layers, before any other size."""
        return windows(layer_count, self.window_size or min(layer_count, 3 if layer_count >= LARGE else 2))

    @property
    def confirming(self) -> int:
        """Images of all steps by which the window found is confirmed: none where it was found in such."""
        return 0 if self.steps == self.sampling.steps else max(1, len(self.images) // 4)

    @property
    def reserve(self) -> float:
        """What a race leaves of its budget to the verdict and to the confirmation, in images of all steps. The verdict
        may take twice as many, and seldom does.
        """
        return len(self.images) * self.steps / self.sampling.steps + 2 * self.confirming

    def most_images(self, layer_count: int) -> float:
        """What the search costs at most, about, in images of all steps; an automatic size may take some more."""
        count, images = len(self.windows(layer_count)), len(self.images)
        if self.effort == "exhaustive":
            return (2 + count) * images
        needed = count * first_round(images) + 2 * min(images, 2 * len(self.pairs))  # and unmodified, and all layers
        least = needed * self.steps / self.sampling.steps + self.reserve
        return max(least, affordable(self.effort, count, images))
