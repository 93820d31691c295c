"""The probe on a denoiser whose layers make a known difference, and on the demo model."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from loco_core.localization.probe import Probe, ProbePlan, probe
from loco_core.models.engine import Chunk, Row, Sampling, TextEmbedding
from loco_core.models.layers import LayerSet, windows
from loco_core.prompts import PromptPair
from made_up import SD15

SAMPLING = Sampling(10, 2.0, "euler", "normal", 64, 64)
PAIR = PromptPair("a star in woodcut", "a star")
COUNT = 16
# What each layer adds to the prediction where it gets the concept prompt: two layers hold the style.
HELD = dict.fromkeys(range(COUNT), 0.0) | {8: 0.7, 9: 0.3}


class Denoiser:
    """An engine that predicts, for each row, the sum of what its layers add, along one direction and across it."""

    layers = SD15

    def __init__(self, across: float = 0.0) -> None:
        self.across, self.asked = across, 0

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
            predicted[place, 0] = sum(HELD[layer] for layer in styled)
            predicted[place, 1] = float(row.embedding.prompt != "")
            predicted[place, 2] = self.across * (8 in chosen and 9 not in chosen)
        return predicted * (10 - step)

    def _reads(self, row: Row, layer: int, chosen: LayerSet) -> str:
        return row.intervention.embedding.prompt if layer in chosen else row.embedding.prompt


def probed(engine: Denoiser, sets: Sequence[LayerSet], **options) -> Probe:
    return probe(engine, ProbePlan(**{"pairs": (PAIR,), "seeds": (0,), "sampling": SAMPLING} | options), sets, 8)


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
    expected = {window: pytest.approx(sum(HELD[layer] for layer in window)) for window in sets}
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
    result = probe(engine, plan, windows(COUNT, 2), 8, lambda done, total: told.append((done, total)))
    path = 2 * 5 * 2  # two seeds, five steps to the last level, with guidance
    assert engine.asked == 2 * 2 * (15 + 3)
    assert result.rows == path + engine.asked
    assert told[0] == (path, result.rows) and told[-1] == (result.rows, result.rows)


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
