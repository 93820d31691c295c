"""What a search is to do.

plan = SearchPlan(
    pairs=prompt_pairs("Van Gogh", "a painting", Attribute.STYLE).pairs,
    seeds=(0, 1),
    attribute=Attribute.STYLE,
    window_size=2,
    sampling=sampling,
)
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from ..models.engine import Sampling
from ..models.layers import LayerSet, ModelLayers, Part, windows
from ..prompts import Attribute, PromptPair, check_pairs_differ
from ..scoring.clip_score import Scorer
from ..scoring.long_texts import unseen_ends
from .strategies import Effort, affordable, first_round, quick_steps

# The window size that stands for: find it.
AUTO = 0


@dataclass(frozen=True)
class SearchPlan:
    """Which windows to try on which images: `window_size` layers, AUTO to find the size; every pair x every seed.

    `part`: what of the layers gets the target prompt. `taken`: how the lines that asked for the pairs were taken, in
    sentences.
    """

    pairs: tuple[PromptPair, ...]
    seeds: tuple[int, ...]
    attribute: Attribute
    window_size: int
    sampling: Sampling
    effort: Effort = Effort.BALANCED
    part: Part = Part.BOTH
    taken: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        Attribute.parse_field(self, "attribute")
        Effort.parse_field(self, "effort")
        Part.parse_field(self, "part")
        check_asked(self.pairs, self.seeds)

    @cached_property
    def images(self) -> tuple[tuple[PromptPair, int], ...]:
        """The pair and seed of every image of a window: one of each pair, then the next seed."""
        return tuple((pair, seed) for seed in self.seeds for pair in self.pairs)

    @property
    def sign(self) -> int:
        """1 if a wanted change raises the score (a new fact appears), else -1 (a style or an object goes away)."""
        return 1 if self.attribute is Attribute.FACT else -1

    @property
    def steps(self) -> int:
        """Sampler steps of the images that compare windows."""
        return self.sampling.steps if self.effort is Effort.EXHAUSTIVE else quick_steps(self.sampling.steps)

    def scored_text(self, pair: PromptPair) -> str:
        """The prompt an image is scored against: the target of a fact, else the concept."""
        return pair.target if self.attribute is Attribute.FACT else pair.concept

    def unseen_by(self, scorer: Scorer) -> tuple[str, ...]:
        """Warnings of prompts that the scorer sees in part; an error where it cannot tell concept from target."""
        return unseen_ends(scorer, self.pairs, [self.scored_text(pair) for pair in self.pairs])

    def windows(self, layers: ModelLayers) -> list[LayerSet]:
        """The windows to try in such a model, before any other size."""
        count = len(layers)
        return windows(count, self.window_size or min(count, layers.family.first_window_size(count)))

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

    def most_images(self, layers: ModelLayers) -> float:
        """What the search costs at most, about, in images of all steps; an automatic size may take some more."""
        count, images = len(self.windows(layers)), len(self.images)
        if self.effort is Effort.EXHAUSTIVE:
            return (2 + count) * images
        needed = count * first_round(images) + 2 * min(images, 2 * len(self.pairs))  # and unmodified, and all layers
        least = needed * self.steps / self.sampling.steps + self.reserve
        return max(least, affordable(self.effort, count, images))


def check_asked(pairs: tuple[PromptPair, ...], seeds: tuple[int, ...]) -> None:
    """An error where there is nothing to compare."""
    if not pairs:
        raise ValueError("concept prompts: empty; give at least one line")
    check_pairs_differ(pairs)
    if not seeds:
        raise ValueError("seeds: 0; give at least 1")
