"""The probe on a denoiser whose layers make a known difference."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from loco_core.localization.plan import ProbePlan
from loco_core.localization.probe import Probe, Prober
from loco_core.models.engine import Sampling
from loco_core.models.layers import LayerSet, windows
from loco_core.prompts import PromptPair
from made_up import SD15, Denoiser, added

SAMPLING = Sampling(10, 2.0, "euler", "normal", 64, 64)
PAIR = PromptPair("a star in woodcut", "a star")
COUNT = 16
# What each layer adds to the prediction where it gets the concept prompt: two layers hold the style.
HELD = {8: 0.7, 9: 0.3}


def denoiser(across: float = 0.0) -> Denoiser:
    return Denoiser(PAIR.concept, added(HELD), SD15, across)


def prober(engine: Denoiser, **options) -> Prober:
    return Prober(engine, ProbePlan(**{"pairs": (PAIR,), "seeds": (0,), "sampling": SAMPLING} | options), 8)


def probed(engine: Denoiser, sets: Sequence[LayerSet], **options) -> Probe:
    return prober(engine, **options).measure(sets)


def layer_set(*indices: int) -> LayerSet:
    return LayerSet(indices, COUNT)


def test_the_share_of_all_layers_is_1_and_of_none_0():
    everywhere, none = layer_set(*range(COUNT)), layer_set()
    result = probed(denoiser(), [everywhere, none])
    assert (result.share(everywhere), result.share(none)) == (1, 0)
    assert (result.off_axis(everywhere), result.off_axis(none)) == (0, 0)


def test_the_layers_that_hold_the_style_have_its_share():
    sets = [*windows(COUNT, 1), *windows(COUNT, 2)]
    result = probed(denoiser(), sets)
    expected = {window: pytest.approx(sum(HELD.get(layer, 0) for layer in window)) for window in sets}
    assert {window: result.share(window) for window in sets} == expected


def test_what_a_window_changes_beside_the_difference_is_off_axis():
    result = probed(denoiser(across=0.5), [layer_set(8), layer_set(8, 9)])
    assert result.share(layer_set(8)) == pytest.approx(0.7)
    assert result.off_axis(layer_set(8)) == pytest.approx(0.5)
    assert result.off_axis(layer_set(8, 9)) == 0


def test_the_difference_is_told_beside_that_of_the_whole_prompt():
    """The style changes one channel by 1, the whole prompt two."""
    assert probed(denoiser(), []).size == pytest.approx(0.5**0.5)


def test_a_level_counts_by_the_difference_made_there_and_by_how_far_the_image_moves_from_it():
    """Sigma halves at each of ten steps: from five levels the image moves three quarters of the way to the next one's,
    and all of it from the last. The difference falls from 10 to 2, and counts as its square.
    """
    result = probed(denoiser(), [layer_set(8)])
    np.testing.assert_allclose(result.weights, [[0.75, 0.75, 0.75, 0.75, 1]])
    made = np.array([100, 64, 36, 16, 4]) * result.weights[0]
    np.testing.assert_allclose(result.level_shares, made / made.sum())


def test_the_share_is_a_ratio_of_sums_over_runs_and_levels():
    result = probed(denoiser(), [layer_set(8)])
    uneven = Probe(
        plan=result.plan,
        along={layer_set(8): np.array([[4.0, 0.0]])},
        changed={},
        whole=np.array([[8.0, 1.0]]),
        prompt=np.ones((1, 2)),
        weights=np.array([[0.5, 1.0]]),
        rows=0,
    )
    assert uneven.share(layer_set(8)) == pytest.approx(2 / 5)
    np.testing.assert_allclose(uneven.shares_by_level(layer_set(8)), [0.5, 0])


@pytest.mark.parametrize(("levels", "steps"), [(1, [0]), (2, [0, 5]), (5, [0, 2, 4, 6, 8]), (11, list(range(10)))])
def test_levels_are_spread_over_the_steps_from_pure_noise_on(levels, steps):
    assert ProbePlan((PAIR,), (0,), SAMPLING, levels).steps == steps


def places(seeds: int, most: int, levels: int = 5) -> tuple[tuple[int, ...], ...]:
    return ProbePlan((PAIR,), tuple(range(seeds)), SAMPLING, levels, most_places=most).levels_of_runs


def test_few_places_are_spread_over_runs_and_levels():
    assert places(4, 8) == ((0, 4), (0, 1), (1, 2), (2, 3))
    assert places(3, 8) == ((0, 1, 3), (1, 2, 4), (0, 2))
    assert places(2, 8) == ((0, 1, 2, 4), (0, 1, 2, 3))
    assert places(1, 8) == (tuple(range(5)),)
    assert places(3, 0, levels=2) == ((0, 1),) * 3


def test_few_places_give_the_same_shares_for_fewer_rows():
    every, few = denoiser(), denoiser()
    sets, seeds = windows(COUNT, 2), (0, 1, 2, 3)
    whole, part = probed(every, sets, seeds=seeds), probed(few, sets, seeds=seeds, most_places=8)
    assert few.asked == 8 / 20 * every.asked
    assert part.rows - few.asked == (8 + 2 + 4 + 6) * 2  # each run as far as its last level, with guidance
    for layers in sets:
        assert part.share(layers) == pytest.approx(whole.share(layers))
        assert part.off_axis(layers) == pytest.approx(whole.off_axis(layers))
        np.testing.assert_allclose(part.shares_by_level(layers), whole.shares_by_level(layers))
    np.testing.assert_allclose(part.level_shares, whole.level_shares)
    assert part.size == pytest.approx(whole.size)


def test_the_denoisers_rows_are_counted_and_told():
    engine, told = denoiser(), []
    plan = ProbePlan((PAIR,), (0, 1), SAMPLING, 2)
    result = Prober(engine, plan, 8, told.append).measure(windows(COUNT, 2))
    path = 2 * 5 * 2  # two seeds, five steps to the last level, with guidance
    assert engine.asked == 2 * 2 * (15 + 3)
    assert result.rows == told[-1] == path + engine.asked


def test_what_was_measured_is_not_measured_again():
    engine = denoiser()
    asking = prober(engine)
    first = asking.measure(windows(COUNT, 2))
    asked = engine.asked
    assert asking.measure(windows(COUNT, 2)[:3]).rows == first.rows
    assert engine.asked == asked


def test_one_place_can_be_asked_alone_for_a_row_a_set():
    engine = denoiser()
    asking = prober(engine)
    asked = engine.asked
    assert asking.main_place == (0, 0)
    assert asking.shares_at(asking.main_place, [layer_set(8), layer_set(1)]) == pytest.approx([0.7, 0])
    assert engine.asked == asked + 2


def test_a_share_has_an_interval_from_several_seeds():
    assert prober(denoiser(), seeds=(0,)).measure([layer_set(8)]).estimate(layer_set(8)).freedom == 0
    several = prober(denoiser(), seeds=(0, 1, 2)).measure([layer_set(8)]).estimate(layer_set(8))
    assert (several.mean, several.images) == (pytest.approx(0.7), 3)
    assert several.low <= several.mean <= several.high


def test_prompts_that_make_no_difference_to_the_model_are_refused():
    pair = PromptPair("a star", "a moon")
    with pytest.raises(ValueError, match="target: 'a moon' makes no difference to 'a star' in this model"):
        probed(denoiser(), [], pairs=(pair,))


def test_a_prediction_that_is_not_finite_is_refused():
    with pytest.raises(ValueError, match="model: NaN or Inf in what it predicts for 'a star in woodcut'"):
        probed(denoiser(across=float("nan")), [layer_set(8)])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pairs": ()}, "concept prompts: empty"),
        ({"pairs": (PromptPair("a star", "a star"),)}, "'a star'"),
        ({"seeds": ()}, "seeds: 0; give at least 1"),
        ({"levels": 0}, "levels: 0; give 1 or more"),
    ],
)
def test_a_plan_of_nothing_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        probed(denoiser(), [], **options)
