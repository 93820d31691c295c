"""Whether a scorer can be trusted: does it know colours at all, and does it see the concept that is looked for."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import torch
from scipy import stats
from torch.nn import functional

from .prompts import ATTRIBUTES
from .scorer import CosineScorer

CONFIDENCE = 0.95

COLOURS = {
    "red": (1.0, 0.0, 0.0),
    "green": (0.0, 0.6, 0.0),
    "blue": (0.0, 0.0, 1.0),
    "yellow": (1.0, 1.0, 0.0),
    "black": (0.0, 0.0, 0.0),
    "white": (1.0, 1.0, 1.0),
}
COLOUR_TEXT = "a plain {} background"
COLOUR_PIXELS = 224
CHANCE = 0.01
"""Two towers that do not belong together pass for a pair in one case of a hundred."""
ROUNDING = 1e-6
"""Of a sum of six cosines in float32: what differs by less is a tie."""


@dataclass(frozen=True)
class Discernment:
    """Whether a scorer tells images of the concept prompts from images of the target prompts.

    difference: by how much the images of the scored prompt score higher than those of the other, in the mean of `count`
    pairs of the same place and seed; low, high: its 95% interval, NaN where there is one pair only.
    """

    difference: float
    low: float
    high: float
    count: int

    @property
    def tells(self) -> bool:
        """Whether it does, beyond chance; with one pair alone, whether it seems to."""
        return self.difference > 0 if self.count < 2 else self.low > 0

    @property
    def sentence(self) -> str:
        told = (
            f"{self.difference:+.2f} points"
            if self.count < 2
            else (f"{self.difference:+.2f} points (95% interval {self.low:+.2f} to {self.high:+.2f})")
        )
        pairs = f"{self.count} pair{'s' if self.count > 1 else ''} of unmodified images"
        if self.tells:
            return f"the scorer tells the concept from the target: {told} in {pairs}"
        return (
            f"the scorer does not tell the concept from the target: {told} in {pairs}. Either the model does not know "
            "the concept, or the scorer does not: look at the images; try another scorer, other prompts or more seeds"
        )


def discernment(concept_images: np.ndarray, target_images: np.ndarray, attribute: str) -> Discernment:
    """Whether unmodified images of the concept prompts and of the target prompts differ by their scores.

    Both arrays hold scores against the SCORED text of each pair (the concept; for a fact the target), paired: the same
    pair and seed at the same place. The interval is Student's, of the mean of the paired differences.
    """
    if attribute not in ATTRIBUTES:
        raise ValueError(f"attribute: {attribute!r}; give one of {', '.join(ATTRIBUTES)}")
    concept, target = (np.asarray(scores, np.float64).ravel() for scores in (concept_images, target_images))
    if len(concept) != len(target) or not len(concept):
        raise ValueError(f"scores: {len(concept)} of concept and {len(target)} of target images; give them in pairs")
    if not (np.isfinite(concept).all() and np.isfinite(target).all()):
        raise ValueError("scores: NaN or Inf in a score of an unmodified image")
    differences = target - concept if attribute == "fact" else concept - target
    mean, count = float(differences.mean()), len(differences)
    if count < 2:
        return Discernment(mean, float("nan"), float("nan"), count)
    half = stats.t.ppf((1 + CONFIDENCE) / 2, count - 1) * differences.std(ddof=1) / np.sqrt(count)
    return Discernment(mean, float(mean - half), float(mean + half), count)


@torch.no_grad()
def knows_colours(scorer: CosineScorer) -> bool:
    """Whether the towers belong together: six plain pictures fit their colours' names better than by chance.

    Of all ways to give six names to six pictures, at most CHANCE may fit as well as the right one. Towers of which one
    lacks its projection, or which were trained apart, embed in two spaces, where any way is as good as another.
    """
    pictures = torch.tensor(list(COLOURS.values()))[:, None, None].expand(-1, COLOUR_PIXELS, COLOUR_PIXELS, -1)
    seen = functional.normalize(scorer.see(pictures).float().cpu(), dim=-1)
    read = functional.normalize(scorer.read([COLOUR_TEXT.format(name) for name in COLOURS]).float().cpu(), dim=-1)
    table = (seen @ read.T).double().numpy()
    if not np.isfinite(table).all():
        return False
    places = np.arange(len(COLOURS))
    fits = np.array([table[places, order].sum() for order in itertools.permutations(places)])
    return bool((fits >= fits[0] - ROUNDING).mean() <= CHANCE)  # the first permutation is the right one
