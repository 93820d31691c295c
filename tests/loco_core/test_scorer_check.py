"""Scorers that see something and scorers that do not."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from loco_core.scorer import CosineScorer
from loco_core.scorer_check import COLOURS, discernment, knows_colours

RNG = np.random.default_rng(0)


def test_a_scorer_that_sees_the_concept_tells():
    verdict = discernment(np.array([30.0, 31, 29, 32]), np.array([20.0, 22, 19, 21]), "style")
    assert verdict.tells
    assert verdict.difference == 10
    assert verdict.sentence.startswith("the scorer tells the concept from the target: +10.00 points (95% interval +")


def test_a_fact_is_scored_against_the_target_so_the_target_images_must_score_higher():
    low, high = np.array([20.0, 22, 19, 21]), np.array([30.0, 31, 29, 32])
    assert discernment(low, high, "fact").tells
    assert not discernment(high, low, "fact").tells
    assert not discernment(low, high, "style").tells


def test_differences_within_chance_do_not_tell_and_the_sentence_names_both_causes():
    verdict = discernment(np.array([20.0, 22, 19, 21]), np.array([21.0, 20, 19.5, 20.6]), "object")
    assert not verdict.tells
    assert "does not tell the concept from the target" in verdict.sentence
    assert "Either the model does not know the concept, or the scorer does not" in verdict.sentence


def test_images_are_compared_pair_by_pair_not_mean_by_mean():
    prompts = np.array([10.0, 30, 50, 70])  # prompts differ far more than the concept does
    assert discernment(prompts + [1, 1.1, 0.9, 1], prompts, "style").tells


def test_one_pair_has_no_interval_and_goes_by_its_sign():
    verdict = discernment(np.array([30.0]), np.array([20.0]), "style")
    assert verdict.tells and np.isnan(verdict.low)
    assert "+10.00 points in 1 pair of" in verdict.sentence
    assert not discernment(np.array([20.0]), np.array([30.0]), "style").tells


def test_equal_images_do_not_tell():
    assert not discernment(np.full(8, 20.0), np.full(8, 20.0), "style").tells


def test_where_nothing_differs_a_scorer_seems_to_tell_in_one_case_of_forty():
    """The upper half of what a 95% interval misses: 2.5%, here of 2000 draws, give or take 1%."""
    told = [discernment(*RNG.normal(size=(2, 8)), "style").tells for _ in range(2000)]
    assert 0.015 <= np.mean(told) <= 0.035


@pytest.mark.parametrize(
    ("concept", "target", "attribute", "message"),
    [
        ([1.0, 2], [1.0], "style", "2 of concept and 1 of target"),
        ([], [], "style", "0 of concept"),
        ([1.0], [float("nan")], "style", "NaN or Inf"),
        ([1.0], [1.0], "colour", "attribute: 'colour'"),
    ],
)
def test_scores_that_cannot_be_compared_are_an_error(concept, target, attribute, message):
    with pytest.raises(ValueError, match=message):
        discernment(np.array(concept), np.array(target), attribute)


class Towers(CosineScorer):
    """A text tower that knows each colour by what `seen_as` says of it, and an eye that sees colours as they are."""

    def __init__(self, seen_as: dict[str, tuple[float, ...]], width: int = 16) -> None:
        super().__init__("towers", "")
        self._seen_as, self._width = seen_as, width

    def _embed(self, colours: torch.Tensor) -> torch.Tensor:
        """Fixed random features of colours [N, 3]."""
        weight = torch.randn(4, self._width, generator=torch.Generator().manual_seed(0))
        return torch.cat([colours, torch.ones(len(colours), 1)], 1) @ weight

    def read(self, texts):
        return self._embed(torch.tensor([self._seen_as[text.split()[2]] for text in texts]))

    def see(self, images):
        return self._embed(images.mean((1, 2)))


def test_towers_that_belong_together_know_colours():
    assert knows_colours(Towers(COLOURS))


def test_towers_that_call_every_colour_by_another_name_do_not():
    shifted = dict(zip(COLOURS, [*list(COLOURS.values())[1:], COLOURS["red"]], strict=True))
    assert not knows_colours(Towers(shifted))


def test_towers_that_see_no_difference_or_nothing_at_all_do_not():
    assert not knows_colours(Towers(dict.fromkeys(COLOURS, (0.5, 0.5, 0.5))))
    assert not knows_colours(Towers(dict.fromkeys(COLOURS, (float("nan"),) * 3)))


def test_of_towers_that_have_nothing_to_do_with_each_other_one_in_a_hundred_passes():
    """0.97% is expected, seven of the 720 orders; of 2000 such towers 0.2 to 2%."""

    class Strangers(CosineScorer):
        def read(self, texts):
            return torch.from_numpy(RNG.normal(size=(len(texts), 64)))

        def see(self, images):
            return torch.from_numpy(RNG.normal(size=(len(images), 64)))

    passed = np.mean([knows_colours(Strangers("strangers", "")) for _ in range(2000)])
    assert 0.002 <= passed <= 0.02
