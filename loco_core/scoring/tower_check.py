"""Whether two towers belong together, and so can be trusted as a scorer."""

from __future__ import annotations

import itertools

import numpy as np
import torch
from torch.nn import functional

from .clip_score import CosineScorer

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
# Two towers that do not belong together pass for a pair in one case of a hundred.
CHANCE = 0.01
# Of a sum of six cosines in float32: what differs by less is a tie.
ROUNDING = 1e-6


@torch.no_grad()
def knows_colours(scorer: CosineScorer) -> bool:
    """Whether the towers belong together: six plain pictures fit their colours' names better than by chance.

    Of all ways to give six names to six pictures, at most CHANCE may fit as well as the right one. Towers of which one
    lacks its projection, or which were trained apart, embed in two spaces, where any way is as good as another.
    """
    pictures = torch.tensor(list(COLOURS.values()))[:, None, None].expand(-1, COLOUR_PIXELS, COLOUR_PIXELS, -1)
    texts = [COLOUR_TEXT.format(name) for name in COLOURS]
    by_image = functional.normalize(scorer.embed_images(pictures).float().cpu(), dim=-1)
    by_text = functional.normalize(scorer.embed_texts(texts).float().cpu(), dim=-1)
    table = (by_image @ by_text.T).double().numpy()
    if not np.isfinite(table).all():
        return False
    places = np.arange(len(COLOURS))
    fits = np.array([table[places, order].sum() for order in itertools.permutations(places)])
    return bool((fits >= fits[0] - ROUNDING).mean() <= CHANCE)  # the first permutation is the right one
