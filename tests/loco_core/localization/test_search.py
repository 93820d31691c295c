from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from loco_core.localization.evaluation import SearchProgress
from loco_core.localization.pictures import contact_sheet, search_picture
from loco_core.localization.report import result_json, search_report
from loco_core.localization.search import images_to_make, search
from loco_core.localization.verdict import Kind
from loco_core.models.layers import LayerSet, Part
from loco_core.prompts import Attribute, PromptPair
from made_up import any_of
from made_up_search import LAYERS, PAIRS, SAMPLING, SCORER, BrightnessScorer, Oil, every_effort, exhaustive, plan, run

# --- by probe ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scorer", [SCORER, None], ids=["scored", "not scored"])
@pytest.mark.parametrize("holding", [(4,), (4, 5), (3, 4)], ids=str)
def test_the_layers_are_found_with_and_without_a_scorer(holding, scorer):
    result = run(scorer=scorer, engine=Oil(*holding))
    assert (result.kind, result.layers.indices) == (Kind.LOCALIZED, holding)
    assert result.scored == (scorer is not None)


def test_images_show_what_was_found_beside_what_it_is_compared_with():
    result = run()
    rows = result.pictures(2)
    assert list(rows)[:2] == [None, LAYERS.all]
    assert set(rows) == {None, LAYERS.all, result.layers, result.located.rival, *map(layers, [(3, 4), (5, 6)])}
    gone = {shown: [picture.mean() == 0 for picture in row] for shown, row in rows.items()}
    assert [shown for shown, row in gone.items() if all(row)] == [LAYERS.all, layers((4, 5))]


def layers(indices: tuple[int, ...]) -> LayerSet:
    return LayerSet(indices, len(LAYERS))


def test_a_set_of_layers_apart_is_shown_too_and_found_as_the_smallest():
    result = run(engine=Oil(1, 6))
    assert (result.kind, result.smallest.indices) == (Kind.SPREAD, (1, 6))
    assert result.smallest in result.pictures(1)


@pytest.mark.parametrize(("pairs", "images"), [(1, 1), (2, 2), (6, 2)])
def test_few_images_confirm_one_of_each_prompt_and_no_more_than_two(pairs, images):
    many = tuple(PromptPair(f"a cat {number} in oil", f"a cat {number}") for number in range(pairs))
    asked = plan(pairs=many)
    assert [seed for _, seed in asked.images] == [7] * images


def test_scores_confirm_what_images_show():
    assert run().confirmed
    assert "confirmed in images (layers 4-5 20.00 points, all layers 20.00)" in str(search_report(run()))
    assert run(scorer=None).confirmed is None


def test_what_the_probe_found_is_not_confirmed_by_images_that_do_not_show_it():
    class NeedsAll(Oil):
        """The predictions change at layers 4 and 5 alone; the images only where all layers get the target."""

        def generate(self, rows, sampling, on_step=None):
            every = [row.intervention is not None and len(row.intervention.layers) == 8 for row in rows]
            return torch.stack([torch.full((16, 32, 3), 0.0 if gone else 1.0) for gone in every])

    result = run(engine=NeedsAll(4, 5))
    assert result.confirmed is False
    assert "NOT confirmed in images: look at them, or search again with effort exhaustive" in str(search_report(result))


def test_a_difference_that_the_scorer_does_not_see_is_said():
    class Blind(BrightnessScorer):
        def score(self, images, texts):
            return torch.full((len(images),), 20.0)

    text = str(search_report(run(scorer=Blind())))
    assert "NOT confirmed: the scorer sees no such difference in the images; look at them" in text


def test_prompts_that_hardly_differ_have_no_layers_and_two_rows_of_images():
    engine = Oil(4, 5)
    engine.shown = lambda holding: 0.01 * any_of(4, 5)(holding)
    result = run(engine=engine)
    assert (result.kind, result.layers.indices, result.smallest.indices) == (Kind.NO_EFFECT, (), ())
    assert list(result.pictures(1)) == [None, LAYERS.all]
    assert "no effect: the two prompts make hardly any difference here" in str(search_report(result))
    assert search_picture(result, LAYERS).ndim == contact_sheet(result).ndim == 3


def test_four_runs_are_probed_of_prompts_and_seeds_each_at_two_of_five_levels():
    every_level = {"sampling": replace(SAMPLING, steps=20)}
    probed = plan(**every_level).probe
    assert probed.runs == [(pair, seed) for seed in (7, 8) for pair in PAIRS]
    assert probed.levels_of_runs == ((0, 4), (0, 1), (1, 2), (2, 3))
    assert plan(pairs=PAIRS[:1], **every_level).probe.runs == [(PAIRS[0], 7), (PAIRS[0], 8)]
    assert plan(pairs=PAIRS[:1], seeds=(7,), **every_level).probe.levels_of_runs == ((0, 1, 2, 3, 4),)


def test_a_run_of_few_steps_is_probed_at_each_of_them():
    assert plan(sampling=replace(SAMPLING, steps=3)).probe.steps == [0, 1, 2]


# --- every window in images -------------------------------------------------------------------------------------------


def test_the_window_that_removes_a_style_wins_by_the_lowest_score():
    result = run(exhaustive())
    assert result.layers.indices == (4, 5)
    assert result.baseline.mean() == 30
    assert [result.mean_score(window) for window in result.shares] == [30, 30, 30, 30, 10, 30, 30]


def test_the_window_that_updates_a_fact_wins_by_the_highest_score_against_the_target():
    result = run(exhaustive(attribute=Attribute.FACT))
    assert result.layers.indices == (4, 5)
    assert result.baseline.mean() == 10
    assert result.mean_score(result.layers) == 30


@pytest.mark.parametrize(("holding", "size"), [((3,), 1), ((4, 5), 2), ((1, 6), 2)], ids=str)
def test_the_size_of_the_windows_is_that_of_the_one_probed_and_the_usual_where_none_is(holding, size):
    result = run(exhaustive(window_size=0), engine=Oil(*holding))
    assert {len(window) for window in result.shares} == {size}


def test_windows_of_a_given_size_need_no_probe():
    engine = Oil(4, 5)
    assert run(exhaustive(), engine=engine).located is None
    assert engine.asked == 0


def test_without_a_scorer_windows_cannot_be_compared_by_images():
    with pytest.raises(ValueError, match="scorer: missing; effort exhaustive compares windows by their images' scores"):
        run(exhaustive(), scorer=None)


def test_a_window_of_all_layers_is_shown_as_any_other():
    result = run(exhaustive(window_size=8))
    assert result.layers == LAYERS.all
    assert list(result.shares) == [result.layers]
    assert search_picture(result, LAYERS).ndim == contact_sheet(result).ndim == 3
    assert "layers 0-7 have 100% of the effect of all layers, and no other window fits beside them" in str(
        search_report(result)
    )


def test_a_concept_that_the_unmodified_images_do_not_show_costs_two_rows_of_images_and_no_window():
    engine = Oil()
    result = run(exhaustive(), engine=engine)
    assert result.kind is Kind.NO_EFFECT
    assert not result.layers
    assert len(engine.made) == 2 * 4
    assert "no window was tried" in str(search_report(result))
    assert search_picture(result, LAYERS).ndim == contact_sheet(result).ndim == 3


def test_an_effect_that_few_images_leave_unsure_is_told_as_such():
    class Unsteady(Oil):
        def generate(self, rows, sampling, on_step=None):
            shown = torch.tensor([0.9 if row.seed == 7 else 0.1 for row in rows])[:, None, None, None]
            return super().generate(rows, sampling, on_step) * shown

    result = run(exhaustive(pairs=PAIRS[:1]), engine=Unsteady(4, 5))
    assert result.kind is Kind.NO_EFFECT
    text = str(search_report(result))
    assert "too few images, or too unlike, to tell whether they show the style" in text
    assert "in 2 images). Give more prompts or seeds; no window was tried." in text


def test_a_concept_in_one_window_is_localized():
    verdict = run(exhaustive()).verdict
    assert (verdict.kind, verdict.share) == (Kind.LOCALIZED, 1.0)
    assert verdict.rival.margin.mean == 20


def test_a_concept_that_no_window_holds_is_spread():
    """Layers 1 and 6 both have to get the target: no window of two has any of the effect."""
    assert run(exhaustive(), engine=Oil(1, 6)).kind is Kind.SPREAD


# --- either way -------------------------------------------------------------------------------------------------------


@every_effort
def test_no_window_is_found_out_of_nan(effort):
    class Damaged(BrightnessScorer):
        def score(self, images, texts):
            return super().score(images, texts) * torch.tensor([float("nan"), *[1.0] * (len(texts) - 1)])

    with pytest.raises(ValueError, match="scorer brightness: NaN or Inf in a score"):
        run(plan(effort=effort), scorer=Damaged())


@every_effort
def test_keys_or_values_alone_are_asked_of_the_engine(effort):
    engine = Oil(4, 5)
    run(plan(effort=effort, part=Part.VALUES), engine=engine)
    assert {row.intervention.part for row in engine.made if row.intervention} == {Part.VALUES}


@every_effort
@pytest.mark.parametrize("rows", [1, 1000])
def test_the_result_does_not_depend_on_the_batch_size(effort, rows):
    asked = plan(effort=effort)
    result = search(Oil(4, 5), SCORER, asked, rows)
    np.testing.assert_array_equal(result.scores, run(asked).scores)


@every_effort
def test_every_set_of_layers_gets_the_same_pairs_and_seeds(effort):
    engine = Oil(4, 5)
    result = run(plan(effort=effort), engine=engine)
    made = [(row.embedding.prompt, row.seed) for row in engine.made]
    expected = [(pair.concept, seed) for pair, seed in result.plan.images]
    assert made == expected * (1 + len(result.table.sets))


@every_effort
def test_no_more_images_are_made_than_is_said_before(effort):
    for holding in ((4, 5), (1, 6)):
        engine, asked = Oil(*holding), plan(effort=effort, window_size=2)
        run(asked, engine=engine)
        assert len(engine.made) <= images_to_make(asked, LAYERS)


def test_progress_tells_the_probes_rows_then_every_batch_of_images_and_every_sampler_step():
    told, batches, steps = [], [], []
    progress = SearchProgress(
        told.append, lambda made: batches.append((len(made.cells), made.label)), lambda: steps.append(1)
    )
    result = run(progress=progress)
    assert told == sorted(told) and told[-1] == result.located.probe.rows
    assert batches == [(4, "layers 0-7"), (8, "layers 3-4"), (12, f"layers {result.located.rival}")]
    assert len(steps) == 3 * SAMPLING.steps


@pytest.mark.parametrize("moment", ["on_rows", "on_batch", "on_step"])
def test_an_exception_at_any_moment_ends_the_search(moment):
    def cancel(*_) -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        run(progress=SearchProgress(**{moment: cancel}))


def test_the_cost_is_told_in_rows_of_the_denoiser():
    result = run()
    images = 12 * SAMPLING.steps * 2
    assert result.rows == result.located.probe.rows + images
    assert f"cost: {result.rows} rows of the denoiser, 12 images among them" in str(search_report(result))


def test_a_target_that_is_the_concept_prompt_itself_is_refused_before_any_image():
    with pytest.raises(ValueError, match="target prompts: 'a cat' is the concept prompt too"):
        plan(pairs=(*PAIRS, PromptPair("a cat", "a cat")))


@pytest.mark.parametrize(
    ("change", "message"), [({"pairs": ()}, "concept prompts: empty"), ({"seeds": ()}, "seeds: 0")]
)
def test_a_plan_that_cannot_be_run_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        plan(**change)


class ShortSighted(BrightnessScorer):
    """Sees three words of a text."""

    words = 3


@every_effort
def test_a_prompt_of_which_the_scorer_sees_the_beginning_alone_stands_in_the_report_and_the_files(effort, caplog):
    result = run(plan(effort=effort), scorer=ShortSighted())
    warning = 'WARNING: the scorer sees the first 3 of 4 tokens of "a cat in oil"; what follows does not count'
    assert warning in str(search_report(result))
    assert warning in json.loads(result_json(result, {}))["warnings"][0]
    assert warning in caplog.text


def test_a_concept_after_all_that_the_scorer_sees_is_an_error_before_any_image_is_made():
    engine = Oil(4, 5)
    with pytest.raises(
        ValueError, match='scorer: it sees the first 3 tokens of a prompt, and "a cat at sea in oil" and'
    ):
        run(plan(pairs=(PromptPair("a cat at sea in oil", "a cat at sea"),)), ShortSighted(), engine)
    assert not engine.made and not engine.asked
