"""The probe on a denoiser whose layers make a known difference, and on the demo model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest
import torch

from loco_core.localization.probe import Probe, ProbePlan, Prober, find_window
from loco_core.localization.verdict import Kind
from loco_core.models.engine import Chunk, Row, Sampling, TextEmbedding
from loco_core.models.layers import LayerSet, windows
from loco_core.prompts import PromptPair
from made_up import SD15

SAMPLING = Sampling(10, 2.0, "euler", "normal", 64, 64)
PAIR = PromptPair("a star in woodcut", "a star")
COUNT = 16
# What each layer adds to the prediction where it gets the concept prompt: two layers hold the style.
HELD = {8: 0.7, 9: 0.3}


class Denoiser:
    """An engine that predicts, for each row, the sum of what its layers add, along one direction and across it."""

    layers = SD15

    def __init__(self, across: float = 0.0, held: Mapping[int, float] = HELD) -> None:
        self.across, self.held, self.asked = across, held, 0

    def encode(self, prompts: Sequence[str]) -> list[TextEmbedding]:
        return [TextEmbedding(prompt, torch.zeros(3, 4), (Chunk(0, 1, 2, 3),)) for prompt in prompts]

    def latents_at(self, rows: Sequence[Row], sampling: Sampling, steps: Sequence[int]) -> torch.Tensor:
        return torch.zeros(len(rows), len(steps), 4, 2, 2)

    def predict(self, rows: Sequence[Row], latents: torch.Tensor, sampling: Sampling, step: int) -> torch.Tensor:
        self.asked += len(rows)
        predicted = torch.zeros(len(rows), 4, 2, 2)
        for place, row in enumerate(rows):
            chosen = row.intervention.layers if row.intervention else LayerSet((), COUNT)
            styled = [layer for layer in range(COUNT) if self._reads(row, layer, chosen) == PAIR.concept]
            predicted[place, 0] = sum(self.held.get(layer, 0) for layer in styled)
            predicted[place, 1] = float(row.embedding.prompt != "")
            predicted[place, 2] = self.across * (8 in chosen and 9 not in chosen)
        return predicted * (10 - step)

    def _reads(self, row: Row, layer: int, chosen: LayerSet) -> str:
        return row.intervention.embedding.prompt if layer in chosen else row.embedding.prompt


def prober(engine: Denoiser, **options) -> Prober:
    return Prober(engine, ProbePlan(**{"pairs": (PAIR,), "seeds": (0,), "sampling": SAMPLING} | options), 8)


def probed(engine: Denoiser, sets: Sequence[LayerSet], **options) -> Probe:
    return prober(engine, **options).measure(sets)


def layer_set(*indices: int) -> LayerSet:
    return LayerSet(indices, COUNT)


def test_the_share_of_all_layers_is_1_and_of_none_0():
    everywhere, none = layer_set(*range(COUNT)), layer_set()
    result = probed(Denoiser(), [everywhere, none])
    assert (result.share(everywhere), result.share(none)) == (1, 0)
    assert (result.off_axis(everywhere), result.off_axis(none)) == (0, 0)


def test_the_layers_that_hold_the_style_have_its_share():
    sets = [*windows(COUNT, 1), *windows(COUNT, 2)]
    result = probed(Denoiser(), sets)
    expected = {window: pytest.approx(sum(HELD.get(layer, 0) for layer in window)) for window in sets}
    assert {window: result.share(window) for window in sets} == expected


def test_what_a_window_changes_beside_the_difference_is_off_axis():
    result = probed(Denoiser(across=0.5), [layer_set(8), layer_set(8, 9)])
    assert result.share(layer_set(8)) == pytest.approx(0.7)
    assert result.off_axis(layer_set(8)) == pytest.approx(0.5)
    assert result.off_axis(layer_set(8, 9)) == 0


def test_the_difference_is_told_beside_that_of_the_whole_prompt():
    """The style changes one channel by 1, the whole prompt two."""
    assert probed(Denoiser(), []).size == pytest.approx(0.5**0.5)


@pytest.mark.parametrize(("levels", "steps"), [(1, [0]), (2, [0, 5]), (5, [0, 2, 4, 6, 8]), (10, list(range(10)))])
def test_levels_are_spread_over_the_steps_from_pure_noise_on(levels, steps):
    assert ProbePlan((PAIR,), (0,), SAMPLING, levels).steps == steps


def test_the_denoisers_rows_are_counted_and_told():
    engine, told = Denoiser(), []
    plan = ProbePlan((PAIR,), (0, 1), SAMPLING, 2)
    result = Prober(engine, plan, 8, told.append).measure(windows(COUNT, 2))
    path = 2 * 5 * 2  # two seeds, five steps to the last level, with guidance
    assert engine.asked == 2 * 2 * (15 + 3)
    assert result.rows == told[-1] == path + engine.asked


def test_what_was_measured_is_not_measured_again():
    engine = Denoiser()
    asking = prober(engine)
    first = asking.measure(windows(COUNT, 2))
    asked = engine.asked
    assert asking.measure(windows(COUNT, 2)[:3]).rows == first.rows
    assert engine.asked == asked


@pytest.mark.parametrize(
    ("held", "expected"),
    [
        ({8: 0.7, 9: 0.3}, (8, 9)),
        ({8: 1.0}, (8,)),
        ({8: 0.95, 9: 0.05}, (8,)),
        ({0: 0.5, 1: 0.5}, (0, 1)),
        ({13: 0.4, 14: 0.4, 15: 0.2}, (13, 14, 15)),
        (dict.fromkeys(range(5), 0.2), (0, 1, 2, 3, 4)),
    ],
    ids=str,
)
def test_the_window_found_is_as_large_as_the_difference(held, expected):
    engine = Denoiser(held=held)
    result = find_window(prober(engine), engine.layers)
    assert result.layers.indices == expected
    assert result.probe.share(result.layers) == pytest.approx(sum(held.get(layer, 0) for layer in expected))


@pytest.mark.parametrize(
    ("held", "kind"),
    [
        ({8: 0.7, 9: 0.3}, Kind.LOCALIZED),
        ({8: 0.4, 9: 0.3, 2: 0.05}, Kind.LOCALIZED),
        ({8: 0.4, 9: 0.3, 2: 0.3}, Kind.SPREAD),
        ({2: 0.3, 7: 0.3, 12: 0.4}, Kind.SPREAD),
        (dict.fromkeys(range(COUNT), 1 / COUNT), Kind.SPREAD),
        ({8: 0.03}, Kind.NO_EFFECT),
    ],
    ids=str,
)
def test_the_verdict_is_localized_where_one_window_makes_most_of_the_difference(held, kind):
    engine = Denoiser(held=held)
    assert find_window(prober(engine), engine.layers).kind is kind


def test_a_share_has_an_interval_from_several_seeds():
    assert prober(Denoiser(), seeds=(0,)).measure([layer_set(8)]).estimate(layer_set(8)).freedom == 0
    several = prober(Denoiser(), seeds=(0, 1, 2)).measure([layer_set(8)]).estimate(layer_set(8))
    assert (several.mean, several.images) == (pytest.approx(0.7), 3)
    assert several.low <= several.mean <= several.high


def test_prompts_that_make_no_difference_to_the_model_are_refused():
    pair = PromptPair("a star", "a moon")
    with pytest.raises(ValueError, match="target: 'a moon' makes no difference to 'a star' in this model"):
        probed(Denoiser(), [], pairs=(pair,))


def test_a_prediction_that_is_not_finite_is_refused():
    with pytest.raises(ValueError, match="model: NaN or Inf in what it predicts for 'a star in woodcut'"):
        probed(Denoiser(across=float("nan")), [layer_set(8)])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pairs": ()}, "concept prompts: empty"),
        ({"pairs": (PromptPair("a star", "a star"),)}, "'a star'"),
        ({"seeds": ()}, "seeds: 0; give at least 1"),
        ({"levels": 0}, "levels: 0; give 1 to the number of steps, 10"),
        ({"levels": 11}, "levels: 11; give 1 to the number of steps, 10"),
    ],
)
def test_a_plan_of_nothing_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        probed(Denoiser(), [], **options)
