"""Towers that belong together, and towers that do not."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from loco_core.scoring.clip_score import CosineScorer
from loco_core.scoring.tower_check import COLOURS, knows_colours

RNG = np.random.default_rng(0)


class Towers(CosineScorer):
    """A text tower that knows each colour by what `seen_as` says of it, and an eye that sees colours as they are."""

    def __init__(self, seen_as: dict[str, tuple[float, ...]], width: int = 16) -> None:
        super().__init__("towers", "")
        self._seen_as, self._width = seen_as, width

    def _embed(self, colours: torch.Tensor) -> torch.Tensor:
        """Fixed random features of colours [N, 3]."""
        weight = torch.randn(4, self._width, generator=torch.Generator().manual_seed(0))
        return torch.cat([colours, torch.ones(len(colours), 1)], 1) @ weight

    def embed_texts(self, texts):
        return self._embed(torch.tensor([self._seen_as[text.split()[2]] for text in texts]))

    def embed_images(self, images):
        return self._embed(images.mean((1, 2)))


def test_towers_that_belong_together_know_colours():
    assert knows_colours(Towers(COLOURS))


def test_towers_that_call_every_colour_by_another_name_do_not():
    shifted = dict(zip(COLOURS, [*list(COLOURS.values())[1:], COLOURS["red"]], strict=True))
    assert not knows_colours(Towers(shifted))


def test_towers_that_see_no_difference_or_nothing_at_all_do_not():
    assert not knows_colours(Towers(dict.fromkeys(COLOURS, (0.5, 0.5, 0.5))))
    assert not knows_colours(Towers(dict.fromkeys(COLOURS, (float("nan"),) * 3)))


@pytest.mark.slow
def test_of_towers_that_have_nothing_to_do_with_each_other_one_in_a_hundred_passes():
    """0.97% is expected, seven of the 720 orders; of 2000 such towers 0.2 to 2%."""

    class Strangers(CosineScorer):
        def embed_texts(self, texts):
            return torch.from_numpy(RNG.normal(size=(len(texts), 64)))

        def embed_images(self, images):
            return torch.from_numpy(RNG.normal(size=(len(images), 64)))

    passed = np.mean([knows_colours(Strangers("strangers", "")) for _ in range(2000)])
    assert 0.002 <= passed <= 0.02
