"""A made-up search: oil paint, in a model of eight layers."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from loco_core.localization.plan import Effort, SearchPlan
from loco_core.localization.search import SearchResult, search
from loco_core.models.engine import Sampling
from loco_core.prompts import Attribute, PromptPair
from loco_core.scoring.clip_score import SeenText
from made_up import Denoiser, any_of, unet

LAYERS = unet(*(("input", number, 1) for number in range(8)))
SAMPLING = Sampling(4, 7.5, "euler", "normal", 32, 16)
PAIRS = (PromptPair("a cat in oil", "a cat"), PromptPair("a dog in oil", "a dog"))
every_effort = pytest.mark.parametrize("effort", Effort)


class Oil(Denoiser):
    """Oil paint shows in an image as long as one of the layers `holding` gets it."""

    def __init__(self, *holding: int) -> None:
        super().__init__("in oil", any_of(*holding), LAYERS)

    def given(self, prompt: str) -> bool:
        return prompt.endswith(self.concept)


class BrightnessScorer:
    """30 for a white image and 10 for a black one; the other way round against a text without the concept."""

    name, digest = "brightness", "0123"
    words = 75

    def seen(self, text):
        words = text.split()
        return SeenText(tuple(words[: self.words]), len(words))

    def score(self, images: torch.Tensor, texts: Sequence[str]) -> torch.Tensor:
        sign = torch.tensor([1.0 if text.endswith("in oil") else -1.0 for text in texts])
        return 20 + 10 * sign * (2 * images.mean((1, 2, 3)) - 1)


SCORER = BrightnessScorer()


def plan(**options) -> SearchPlan:
    return SearchPlan(**{"pairs": PAIRS, "seeds": (7, 8), "attribute": Attribute.STYLE, "sampling": SAMPLING} | options)


def exhaustive(**options) -> SearchPlan:
    return plan(**{"effort": Effort.EXHAUSTIVE, "window_size": 2} | options)


def run(asked: SearchPlan | None = None, scorer=SCORER, engine: Denoiser | None = None, **options) -> SearchResult:
    return search(engine or Oil(4, 5), scorer, asked or plan(), 5, **options)
