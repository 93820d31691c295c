"""Effects of neurons by ablating groups of them: on an engine whose neurons' effects are known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from loco_core.comparison.erasure import ErasurePlan
from loco_core.images import Progress
from loco_core.models.engine import Sampling
from loco_core.models.layers import LayerSet, Part
from loco_core.neurons.ablation import Ablation, ChooseBy, chosen_neurons
from loco_core.neurons.detection import Neurons, NeuronScores, NeuronTokens, Ranking
from loco_core.neurons.effects import (
    RUNS,
    EffectsRequest,
    first_groups,
    group_effects,
    measure_effects,
    screening_design,
)
from loco_core.neurons.file import load_neurons, save_neurons
from loco_core.neurons.pictures import effect_plot
from loco_core.neurons.report import neuron_report
from loco_core.prompts import PromptPair
from made_up import GreyScorer, Painter

STYLED, PLAIN, KEPT = "a star in woodcut", "a star", "a fish in halftone"
PLAN = ErasurePlan((PromptPair(STYLED, PLAIN),), (KEPT,), (0,), Sampling(1, 1.0, "euler", "normal", 16, 16))
COUNT = 60
# Neurons that hold the style, though their signal is small.
CARRIERS = range(40, 44)
# Neurons that the kept prompt needs, though their signal is large.
NEEDED = range(8, 12)


def scores(count: int) -> NeuronScores:
    return NeuronScores(*torch.arange(float(count), 0, -1).double().repeat(4, 1).clone().unbind())


NEURONS = Neurons(
    {(8, Part.VALUES): scores(COUNT)}, LayerSet((8,), 16), 32, NeuronTokens.TAIL, (STYLED, "b"), (PLAIN, "d"), ""
)


def ablated(change: Ablation) -> Painter:
    gone = {int(neuron) for replacement in change.values() for neuron in replacement.neurons}
    carried, needed = (sum(neuron in gone for neuron in group) / len(group) for group in (CARRIERS, NEEDED))
    return Painter({STYLED: 0.8 - 0.6 * carried, PLAIN: 0.2, KEPT: 0.5 - 0.3 * needed})


def measure(runs: int = 32, rounds: int = 2, plan: ErasurePlan = PLAN, neurons: Neurons = NEURONS, **options):
    request = EffectsRequest(plan, neurons, runs, rounds)
    return measure_effects(request, ablated({}), ablated, GreyScorer(), 4, **options)


def test_the_first_groups_are_of_one_place_each_and_about_as_large_as_each_other():
    sizes = {(8, Part.KEYS): 20, (8, Part.VALUES): 60, (9, Part.VALUES): 40}
    found = Neurons(
        {place: scores(n) for place, n in sizes.items()}, LayerSet((8, 9), 16), 32, NeuronTokens.TAIL, (), (), ""
    )
    groups = first_groups(found, 15)
    assert all(len({place for place, _ in group}) == 1 for group in groups)
    assert {len(group) for group in groups} <= {6, 7, 8, 9}  # 120 neurons, 15 groups
    assert sorted(neuron for group in groups for neuron in group) == sorted(found.ranked())
    assert len(groups) == 15


def test_where_there_are_more_places_than_groups_a_group_is_of_whole_places():
    found = Neurons(
        {(i, Part.VALUES): scores(3) for i in range(16)}, LayerSet((8, 9), 16), 32, NeuronTokens.TAIL, (), (), ""
    )
    assert [len(group) for group in first_groups(found, 7)] == [6, 9, 6, 6, 6, 9, 6]


@pytest.mark.parametrize("runs", RUNS)
def test_every_group_is_ablated_in_half_of_the_runs_and_apart_from_each_other(runs):
    signs = np.where(screening_design(runs), 1, -1)
    assert signs.shape == (runs, runs // 2 - 1)
    assert np.array_equal(signs.T @ signs, runs * np.eye(runs // 2 - 1))
    assert not signs.sum(0).any()


def test_what_two_groups_do_together_is_not_taken_for_what_one_does():
    design = screening_design(16)
    both = design[:, 0] & design[:, 1]
    assert group_effects(design, 3.0 * both)[2:] == pytest.approx(0)


def test_neurons_that_hold_the_concept_rank_first_and_those_that_others_need_last():
    order = [neuron for _, neuron in measure().ranked(Ranking.EFFECT)]
    assert set(order[: len(CARRIERS)]) == set(CARRIERS)
    assert set(order[-len(NEEDED) :]) == set(NEEDED)


def test_an_effect_is_a_neurons_share_of_what_its_group_removes():
    effects = measure().scores[8, Part.VALUES].effect
    assert effects[list(CARRIERS)].tolist() == pytest.approx([1 / len(CARRIERS)] * len(CARRIERS))


def test_more_rounds_find_single_neurons_in_larger_groups():
    neurons = replace(NEURONS, scores={(8, Part.VALUES): scores(240)})
    found = measure(16, 6, neurons=neurons).ranked(Ranking.EFFECT)
    assert {neuron for _, neuron in found[: len(CARRIERS)]} == set(CARRIERS)


def test_as_few_neurons_as_there_are_groups_or_fewer_stand_alone():
    neurons = replace(NEURONS, scores={(8, Part.VALUES): scores(3)})
    assert measure(neurons=neurons).scores[8, Part.VALUES].effect.tolist() == pytest.approx([0, 0, 0])


def test_the_images_are_counted_before_they_are_made():
    seen = []
    measure(progress=Progress(lambda done, total, label, thumbnail: seen.append((done, total))))
    assert seen[-1] == (EffectsRequest(PLAN, NEURONS, 32, 2).images,) * 2


def test_neurons_with_equal_effects_stand_in_the_order_of_their_signal():
    first = [neuron for _, neuron in measure(rounds=1).ranked(Ranking.EFFECT)[: len(CARRIERS)]]
    assert first == list(CARRIERS)


def test_neurons_are_chosen_by_their_effect():
    chosen = chosen_neurons(measure(), ChooseBy.COUNT, len(CARRIERS), ranking=Ranking.EFFECT)
    assert chosen[8, Part.VALUES].tolist() == list(CARRIERS)


def test_unmeasured_effects_are_no_ranking():
    with pytest.raises(ValueError, match="rank by: the effect of these neurons was not measured"):
        NEURONS.ranked(Ranking.EFFECT)


def test_the_report_says_how_far_the_rankings_agree():
    assert "effects measured" not in str(neuron_report(NEURONS))
    assert "effects measured: effect and signal agree to" in neuron_report(measure()).figures[-1]


def test_effects_that_rank_nothing_are_said_to():
    """Where no group of neurons changes an image, Spearman's correlation would be NaN."""
    request = EffectsRequest(PLAN, NEURONS, 16, 1)
    measured = measure_effects(request, ablated({}), lambda change: ablated({}), GreyScorer(), 4)
    report = str(neuron_report(measured))
    assert "effect and signal cannot be compared: effect is the same for all neurons" in report
    assert "Do not rank by effect" in report
    assert "nan" not in report
    assert effect_plot(measured).ndim == 3


def test_scores_that_rank_nothing_are_said_to():
    alike = NeuronScores(*torch.ones(4, COUNT).double())
    report = str(neuron_report(replace(NEURONS, scores={(8, Part.VALUES): alike})))
    assert "the rankings by signal and by |z| cannot be compared: signal is the same for all neurons" in report


def test_effects_are_not_measured_where_the_images_do_not_show_the_concept():
    """Their ranking would be by what is kept alone."""
    faint = {STYLED: 0.203, PLAIN: 0.2, KEPT: 0.5}
    with pytest.raises(ValueError, match="less than 0.5 apart, the scorer cannot tell what is removed"):
        request = EffectsRequest(PLAN, NEURONS, 16, 1)
        measure_effects(request, Painter(faint), lambda change: Painter(faint), GreyScorer(), 4)


def test_the_plot_is_a_picture():
    picture = effect_plot(measure())
    assert picture.ndim == 3 and picture.shape[2] == 3 and min(picture.shape[:2]) > 40


def test_saved_effects_are_loaded_as_they_were(tmp_path):
    measured = measure()
    save_neurons(measured, tmp_path / "neurons.safetensors", {})
    loaded = load_neurons(tmp_path / "neurons.safetensors")
    assert torch.equal(loaded.scores[8, Part.VALUES].effect, measured.scores[8, Part.VALUES].effect)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"runs": 20}, "runs: 20; give one of 16, 32, 64"),
        ({"rounds": 0}, "rounds: 0; give at least 1"),
        ({"plan": replace(PLAN, kept=())}, "keep prompts: empty"),
        ({"plan": replace(PLAN, pairs=(PromptPair(PLAIN, STYLED),))}, "the scorer cannot tell what is removed"),
    ],
)
def test_what_cannot_be_measured_is_refused(change, sentence):
    with pytest.raises(ValueError, match=sentence):
        measure(**change)


def test_a_concept_after_all_that_the_scorer_sees_is_an_error_before_any_image_is_made():
    request = EffectsRequest(PLAN, NEURONS)
    with pytest.raises(ValueError, match="scorer: it sees the first 2 tokens of a prompt"):
        measure_effects(request, Painter({}), lambda change: Painter({}), GreyScorer(words=2), 4)
