from __future__ import annotations

import csv
import io
import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from loco_core.localization.evaluation import Evaluation, SearchProgress
from loco_core.localization.pictures import contact_sheet, layer_effects, model_figure, score_plot
from loco_core.localization.plan import AUTO, SearchPlan
from loco_core.localization.report import layers_of_search, report_text, result_json, scores_csv
from loco_core.localization.score_table import ScoreTable
from loco_core.localization.search import Confirmation, search
from loco_core.localization.strategies import Effort, grown
from loco_core.localization.verdict import Kind
from loco_core.models.engine import Sampling, TextEmbedding
from loco_core.models.layers import Part
from loco_core.prompts import Attribute, PromptPair
from loco_core.scoring.clip_score import SeenText
from loco_core.scoring.intervals import Estimate
from made_up import chunk, unet

LAYERS = 8
SAMPLING = Sampling(4, 7.5, "euler", "normal", 32, 16)
PAIRS = (PromptPair("a cat in oil", "a cat"), PromptPair("a dog in oil", "a dog"))


class PlantedEngine:
    """A model in which the concept shows (a white image) unless layers `planted` all read the target (black)."""

    def __init__(self, planted: set[int]) -> None:
        self.layers = unet(*(("input", number, 1) for number in range(LAYERS)))
        self.planted, self.batches = planted, []

    def encode(self, prompts):
        return [TextEmbedding(prompt, torch.zeros(77, 4), (chunk(3),)) for prompt in prompts]

    def generate(self, rows, sampling, on_step=None):
        self.batches.append([(row.embedding.prompt, row.seed) for row in rows])
        for _ in range(sampling.steps if on_step else 0):
            on_step()
        gone = [row.intervention is not None and self.planted <= set(row.intervention.layers) for row in rows]
        return torch.stack([torch.full((sampling.height, sampling.width, 3), 0.0 if g else 1.0) for g in gone])


class BrightnessScorer:
    """30 for a white image and 10 for a black one; the other way round against a text without the concept."""

    name = "brightness"
    words = 75

    def seen(self, text):
        words = text.split()
        return SeenText(tuple(words[: self.words]), len(words))

    def score(self, images, texts):
        sign = torch.tensor([1.0 if "oil" in text else -1.0 for text in texts])
        return 20 + 10 * sign * (2 * images.mean((1, 2, 3)) - 1)


def run(attribute: Attribute = Attribute.STYLE, planted: frozenset[int] = frozenset({4, 5}), rows: int = 5, **options):
    progress = SearchProgress(**{name: options.pop(name) for name in ("on_batch", "on_step") if name in options})
    engine = PlantedEngine(set(planted))
    plan = SearchPlan(
        PAIRS, (7, 8), attribute, **{"window_size": 2, "sampling": SAMPLING, "effort": Effort.EXHAUSTIVE} | options
    )
    return engine, search(engine, BrightnessScorer(), plan, rows, progress)


def test_the_window_that_removes_a_style_wins_by_the_lowest_score():
    _, result = run(Attribute.STYLE)
    assert result.layers.indices == (4, 5)
    assert result.baseline.mean() == 30
    assert [result.mean_score(window) for window in result.windows] == [30, 30, 30, 30, 10, 30, 30]


def test_the_window_that_updates_a_fact_wins_by_the_highest_score_against_the_target():
    _, result = run(Attribute.FACT)
    assert result.layers.indices == (4, 5)
    assert result.baseline.mean() == 10
    assert result.mean_score(result.layers) == 30


@pytest.mark.parametrize("effort", [Effort.FAST, Effort.BALANCED])
def test_a_race_finds_the_same_window_with_fewer_images_and_confirms_it_in_images_of_all_steps(effort):
    engine, result = run(planted=frozenset({4, 5}), effort=effort, sampling=replace(SAMPLING, steps=40))
    assert result.layers.indices == (4, 5)
    assert result.confirmation.holds
    assert result.cost < 0.6 * run()[1].cost  # of 4 images per window there are few to spare
    assert {cell.steps for cell in result.cells} == {10, 40}


def test_a_window_that_a_race_found_in_short_images_alone_is_not_confirmed():
    class ShortImagesOnly(PlantedEngine):
        def generate(self, rows, sampling, on_step=None):
            images = super().generate(rows, sampling, on_step)
            return images if sampling.steps < 40 else torch.ones_like(images)

    plan = SearchPlan(PAIRS, (7, 8), Attribute.STYLE, 2, replace(SAMPLING, steps=40))
    result = search(ShortImagesOnly({4, 5}), BrightnessScorer(), plan, 8)
    assert not result.confirmation.holds
    assert "NOT confirmed, search again with effort exhaustive" in report_text(result)


@pytest.mark.parametrize("effort", Effort)
@pytest.mark.parametrize("steps", [4, 20])
@pytest.mark.parametrize("seeds", [(7,), (7, 8, 9, 10)])
def test_a_search_costs_no_more_than_is_said_before_it(effort, steps, seeds):
    """Few images for each window, or few steps, leave a race little to save: its first round is made in any case."""
    plan = SearchPlan(PAIRS, seeds, Attribute.STYLE, 2, replace(SAMPLING, steps=steps), effort)
    engine = PlantedEngine({4, 5})
    result = search(engine, BrightnessScorer(), plan, 8)
    assert result.cost <= plan.most_images(engine.layers)


def test_a_window_of_all_layers_is_shown_as_any_other():
    engine, result = run(window_size=LAYERS)
    assert result.layers.indices == tuple(range(LAYERS))
    assert result.windows == [result.layers]
    assert score_plot(result).ndim == contact_sheet(result).ndim == model_figure(result, engine.layers).ndim == 3
    assert "layers 0-7 have 100% of the effect of all layers, and no other window fits beside them" in report_text(
        result
    )


def test_what_goes_the_wrong_way_in_images_of_all_steps_is_not_confirmed():
    raced, effect = (Estimate(mean, 0.1, 3.0, 4) for mean in (-1.0, -0.4))
    assert not Confirmation(effect, raced).holds


def test_a_concept_that_the_unmodified_images_do_not_show_costs_two_rows_of_images_and_no_window():
    engine, result = run(planted=frozenset({99}))
    assert result.verdict.kind is Kind.NO_EFFECT
    assert not result.layers and not result.windows
    assert sum(map(len, engine.batches)) == 2 * 4
    assert "no window was tried" in report_text(result)
    assert score_plot(result).ndim == contact_sheet(result).ndim == model_figure(result, engine.layers).ndim == 3


def test_an_effect_that_later_images_take_back_is_no_effect_whatever_window_seemed_to_have_it():
    class FirstSeedsOnly(PlantedEngine):
        """All windows change the images of the later seeds the other way, by more."""

        def generate(self, rows, sampling, on_step=None):
            images = super().generate(rows, sampling, on_step)
            late = torch.tensor([row.seed > 8 for row in rows])[:, None, None, None]
            changed = torch.tensor([row.intervention is not None for row in rows]).float()[:, None, None, None]
            return torch.where(late, changed, images)

    plan = SearchPlan(PAIRS, (7, 8, 9, 10), Attribute.STYLE, 2, SAMPLING, Effort.EXHAUSTIVE)
    engine = FirstSeedsOnly({4, 5})
    result = search(engine, BrightnessScorer(), plan, 8)
    assert result.verdict.kind is Kind.NO_EFFECT
    assert not result.layers and result.windows
    assert "no window is recommended" in report_text(result)
    assert "nan" not in report_text(result)
    assert score_plot(result).ndim == contact_sheet(result).ndim == model_figure(result, engine.layers).ndim == 3


def test_a_target_that_is_the_concept_prompt_itself_is_refused_before_any_image():
    with pytest.raises(ValueError, match="target prompts: 'a cat' is the concept prompt too"):
        SearchPlan((*PAIRS, PromptPair("a cat", "a cat")), (7,), Attribute.STYLE, 2, SAMPLING)


@pytest.mark.parametrize("effort", Effort)
def test_no_window_is_found_out_of_nan(effort):
    class Damaged(BrightnessScorer):
        def score(self, images, texts):
            return super().score(images, texts) * torch.tensor([float("nan"), *[1.0] * (len(texts) - 1)])

    plan = SearchPlan(PAIRS, (7, 8), Attribute.STYLE, 2, SAMPLING, effort)
    with pytest.raises(ValueError, match="scorer brightness: NaN or Inf in a score"):
        search(PlantedEngine({4, 5}), Damaged(), plan, 8)


def test_an_effect_that_few_images_leave_unsure_is_told_as_such():
    class Unsteady(PlantedEngine):
        def generate(self, rows, sampling, on_step=None):
            shown = torch.tensor([0.9 if row.seed == 7 else 0.1 for row in rows])[:, None, None, None]
            return super().generate(rows, sampling, on_step) * shown

    plan = SearchPlan(PAIRS[:1], (7, 8), Attribute.STYLE, 2, replace(SAMPLING, steps=40))
    result = search(Unsteady({4, 5}), BrightnessScorer(), plan, 8)
    assert result.verdict.kind is Kind.NO_EFFECT
    text = report_text(result)
    assert "too few images, or too unlike, to tell whether they show the style" in text
    assert "in 2 images of 10 steps). Give more prompts or seeds, or effort exhaustive for images of 40;" in text


def test_a_concept_in_one_window_is_localized():
    verdict = run()[1].verdict
    assert (verdict.kind, verdict.share) == (Kind.LOCALIZED, 1.0)
    assert verdict.rival.margin.mean == 20


def test_a_concept_that_no_window_holds_is_spread():
    """Layers 1 and 6 both have to read the target: no window of two has any of the effect."""
    assert run(planted=frozenset({1, 6}))[1].verdict.kind is Kind.SPREAD


@pytest.mark.parametrize("planted", [{3}, {4, 5}, {2, 3, 4}, {3, 4, 5, 6}])
def test_an_automatic_window_takes_in_the_planted_layers_and_no_other(planted):
    """More than two planted layers show in no window of two: there the search begins with as many as they are."""
    start = AUTO if len(planted) <= 2 else len(planted) + 1
    engine = PlantedEngine(planted)
    plan = SearchPlan(PAIRS, (7, 8), Attribute.STYLE, start, SAMPLING, Effort.EXHAUSTIVE)
    table = ScoreTable(Evaluation(engine, BrightnessScorer(), plan, 8), 4, 4, plan.sign, LAYERS)
    first = next(w for w in plan.windows(engine.layers) if planted <= set(w))
    assert set(grown(table, first, 20.0, len(PAIRS))) == planted


def test_keys_or_values_alone_are_asked_of_the_engine():
    parts = []

    class Parts(PlantedEngine):
        def generate(self, rows, sampling, on_step=None):
            parts.extend(row.intervention.part for row in rows if row.intervention)
            return super().generate(rows, sampling, on_step)

    plan = SearchPlan(PAIRS, (7, 8), Attribute.STYLE, 2, SAMPLING, Effort.BALANCED, Part.VALUES)
    search(Parts({4, 5}), BrightnessScorer(), plan, 8)
    assert set(parts) == {Part.VALUES}


@pytest.mark.parametrize("rows", [1, 5, 1000])
def test_the_result_does_not_depend_on_the_batch_size(rows):
    np.testing.assert_array_equal(run(rows=rows)[1].scores, run(rows=5)[1].scores)


def test_every_window_sees_the_same_pairs_and_seeds_and_no_batch_exceeds_the_rows():
    engine, result = run(rows=5)
    assert max(map(len, engine.batches)) == 5
    made = [row for batch in engine.batches for row in batch]
    expected = [(pair.concept, seed) for seed in (7, 8) for pair in PAIRS]
    assert made == expected * (2 + len(result.windows))


def test_progress_tells_the_cost_so_far_and_every_sampler_step():
    seen, steps = [], []
    run(
        rows=10,
        on_batch=lambda made: seen.append((made.cost, made.label, made.thumbnails[-1].shape)),
        on_step=lambda: steps.append(1),
    )
    assert [cost for cost, _, _ in seen] == [8, 18, 28, 36]
    assert seen[1][1:] == ("layers 2-3", (16, 32, 3))
    assert len(steps) == 4 * SAMPLING.steps


def test_an_exception_in_a_step_ends_the_search():
    def cancel() -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        run(on_step=cancel)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pairs": ()}, "concept prompts: empty"),
        ({"seeds": ()}, "seeds: 0"),
    ],
)
def test_a_plan_that_cannot_be_run_is_refused(change, message):
    good = {"pairs": PAIRS, "seeds": (1,), "attribute": Attribute.STYLE, "window_size": 2, "sampling": SAMPLING}
    with pytest.raises(ValueError, match=message):
        SearchPlan(**good | change)


def test_the_report_names_the_window_its_score_and_the_verdict():
    text = report_text(run()[1])
    assert "style: layers 4-5 of 8" in text
    assert (
        "localized: layers 4-5 have 100% of the effect of all layers, 20.00 \u00b1 0.00 points ahead of the best"
        in text
    )
    assert "layers 4-5     10.00  (-20.00 \u00b1 0.00; 4)" in text


def test_the_json_holds_all_that_is_needed_to_use_the_result_again():
    content = json.loads(result_json(run()[1], {"host": "test"}))
    assert content["layers"] == [4, 5]
    assert content["layer_count"] == LAYERS
    assert content["scores"] == [30, 30, 30, 30, 10, 30, 30]
    assert content["effects"][4] == {"mean": 20, "low": 20, "high": 20, "images": 4}
    assert content["verdict"]["kind"] == "localized"
    assert content["pairs"][0] == {"concept": "a cat in oil", "target": "a cat"}
    assert content["seeds"] == [7, 8]
    assert content["sampling"]["steps"] == 4


def test_the_layers_in_the_json_are_read_again_and_those_of_no_effect_are_refused():
    layers, text = layers_of_search(result_json(run()[1], {}), "a.json")
    assert layers.indices == (4, 5)
    assert text == "layers 4-5 of 8: style, a cat in oil, a dog in oil"
    with pytest.raises(ValueError, match=r"file: 'b.json' found no layers \(no effect"):
        layers_of_search(result_json(run(planted=frozenset({99}))[1], {}), "b.json")


def test_the_csv_has_a_line_for_every_image():
    result = run()[1]
    rows = list(csv.DictReader(io.StringIO(scores_csv(result.plan, result.cells, result.scores))))
    assert len(rows) == 4 * 9
    gone = [row for row in rows if row["layers"] == "4-5"]
    assert [(row["seed"], float(row["difference"])) for row in gone] == [("7", -20)] * 2 + [("8", -20)] * 2


def test_the_csv_of_a_search_that_was_stopped_holds_what_was_done():
    result = run()[1]
    lines = scores_csv(result.plan, result.cells[:10], result.scores[:10]).splitlines()
    assert len(lines) == 1 + 10
    assert lines[-1].startswith("0-1,keys and values,a dog in oil,a dog,7,4,")


def test_a_report_tells_how_the_lines_were_taken_and_the_csv_what_was_scored():
    _, result = run()
    pairs = (PromptPair(r"a (cat:1.2) in oil \(thick\)", "a cat"), PAIRS[1])
    result = replace(result, plan=replace(result.plan, pairs=pairs, taken=("concept, taken as a prompt: x",)))
    assert report_text(result).splitlines()[-1] == "concept, taken as a prompt: x"
    row, *_ = csv.DictReader(io.StringIO(scores_csv(result.plan, result.cells, result.scores)))
    assert (row["concept"], row["scored_text"]) == (pairs[0].concept, "a cat in oil (thick)")


def test_captions_are_drawn_as_plain_text():
    engine, result = run()
    drawings = []
    for concept, target in (("a (cat:1.2) in oil", "((a cat))"), ("a cat in oil", "a cat")):
        told = replace(result, plan=replace(result.plan, pairs=(PromptPair(concept, target), PAIRS[1])))
        drawings.append((score_plot(told), model_figure(told, engine.layers), contact_sheet(told)))
    assert all(np.array_equal(*both) for both in zip(*drawings, strict=True))


def test_the_pictures_are_there_to_look_at():
    engine, result = run()
    assert score_plot(result).shape[2] == 3
    assert model_figure(result, engine.layers).shape[2] == 3
    assert contact_sheet(result).shape[0] > 9 * 16


def test_dollars_in_a_prompt_begin_no_formula():
    engine, result = run()
    priced = replace(result.plan, pairs=(PromptPair("money $#$ in oil", "money $#$"), PAIRS[1]))
    result = replace(result, plan=priced)
    assert score_plot(result).ndim == model_figure(result, engine.layers).ndim == contact_sheet(result).ndim == 3


def test_the_contact_sheet_begins_with_what_is_to_go_and_with_what_all_layers_make_of_it():
    pictures = run()[1].pictures(4)
    unmodified, whole, *windows = pictures.values()
    assert len(windows) == 7
    assert [image.mean() for image in unmodified] == [255] * 4
    assert [image.mean() for image in whole] == [0] * 4


def test_a_layer_is_coloured_by_the_best_window_that_it_is_in():
    assert layer_effects(run()[1]).tolist() == [0, 0, 0, 0, 1, 1, 0, 0]


class ShortSighted(BrightnessScorer):
    """Sees three words of a text."""

    words = 3


def test_a_prompt_of_which_the_scorer_sees_the_beginning_alone_stands_in_the_report_and_the_files(caplog):
    plan = SearchPlan(PAIRS, (7,), Attribute.STYLE, 2, SAMPLING, effort=Effort.EXHAUSTIVE)
    result = search(PlantedEngine({4, 5}), ShortSighted(), plan, 5)
    warning = 'WARNING: the scorer sees the first 3 of 4 tokens of "a cat in oil"; what follows does not count'
    assert warning in report_text(result)
    assert warning in json.loads(result_json(result, {}))["warnings"][0]
    assert warning in caplog.text


def test_a_concept_after_all_that_the_scorer_sees_is_an_error_before_any_image_is_made():
    pairs = (PromptPair("a cat at sea in oil", "a cat at sea"),)
    plan, engine = SearchPlan(pairs, (7,), Attribute.STYLE, 2, SAMPLING), PlantedEngine({4, 5})
    with pytest.raises(
        ValueError, match='scorer: it sees the first 3 tokens of a prompt, and "a cat at sea in oil" and'
    ):
        search(engine, ShortSighted(), plan, 5)
    assert not engine.batches
