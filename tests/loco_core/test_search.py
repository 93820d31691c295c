from __future__ import annotations

import csv
import io
import json

import numpy as np
import pytest
import torch

from loco_core.engine import Sampling, TextEmbedding
from loco_core.layers import CrossAttentionLayer
from loco_core.pictures import contact_sheet, score_plot
from loco_core.prompts import PromptPair
from loco_core.report import report_text, result_json, scores_csv
from loco_core.search import SearchPlan, search

LAYERS = 8
SAMPLING = Sampling(4, 7.5, "euler", "normal", 32, 16)
PAIRS = (PromptPair("a cat in oil", "a cat"), PromptPair("a dog in oil", "a dog"))


class PlantedEngine:
    """A model in which the concept shows (a white image) unless layers `planted` all read the target (black)."""

    def __init__(self, planted: set[int]) -> None:
        self.layers = tuple(CrossAttentionLayer(i, "input", i, 0) for i in range(LAYERS))
        self.planted, self.batches = planted, []

    def encode(self, prompts):
        return [TextEmbedding(prompt, torch.zeros(77, 4), 3) for prompt in prompts]

    def generate(self, rows, sampling, on_step=None):
        self.batches.append([(row.embedding.prompt, row.seed) for row in rows])
        for _ in range(sampling.steps if on_step else 0):
            on_step()
        gone = [row.intervention is not None and self.planted <= set(row.intervention.layers) for row in rows]
        return torch.stack([torch.full((sampling.height, sampling.width, 3), 0.0 if g else 1.0) for g in gone])


class BrightnessScorer:
    """30 for a white image and 10 for a black one; the other way round against a text without the concept."""

    name = "brightness"

    def score(self, images, texts):
        sign = torch.tensor([1.0 if "oil" in text else -1.0 for text in texts])
        return 20 + 10 * sign * (2 * images.mean((1, 2, 3)) - 1)


def run(attribute: str = "style", planted: frozenset[int] = frozenset({4, 5}), rows: int = 5, **callbacks):
    engine = PlantedEngine(set(planted))
    plan = SearchPlan(PAIRS, (7, 8), attribute, 2, SAMPLING)
    return engine, search(engine, BrightnessScorer(), plan, rows, **callbacks)


def test_the_window_that_removes_a_style_wins_by_the_lowest_score():
    _, result = run("style")
    assert result.layers.indices == (4, 5)
    assert result.baseline.mean() == 30
    assert result.mean_scores.tolist() == [30, 30, 30, 30, 10, 30, 30]


def test_the_window_that_updates_a_fact_wins_by_the_highest_score_against_the_target():
    _, result = run("fact")
    assert result.layers.indices == (4, 5)
    assert result.baseline.mean() == 10
    assert result.mean_scores[4] == 30


@pytest.mark.parametrize("rows", [1, 5, 1000])
def test_the_result_does_not_depend_on_the_batch_size(rows):
    np.testing.assert_array_equal(run(rows=rows)[1].scores, run(rows=5)[1].scores)


def test_every_window_sees_the_same_pairs_and_seeds_and_no_batch_exceeds_the_rows():
    engine, result = run(rows=5)
    assert max(map(len, engine.batches)) == 5
    made = [row for batch in engine.batches for row in batch]
    expected = [(pair.concept, seed) for pair in PAIRS for seed in (7, 8)]
    assert made == expected * (1 + len(result.windows))


def test_progress_counts_every_image_and_every_sampler_step():
    seen, steps = [], []
    run(
        rows=10,
        on_batch=lambda scores, total, label, thumbnail: seen.append((len(scores), total, label, thumbnail.shape)),
        on_step=lambda: steps.append(1),
    )
    assert [(done, total) for done, total, _, _ in seen] == [(10, 32), (20, 32), (30, 32), (32, 32)]
    assert seen[0][2:] == ("window 2 of 7 (layers 1-2)", (16, 32, 3))
    assert len(steps) == 4 * SAMPLING.steps


def test_an_exception_in_a_step_ends_the_search():
    def cancel() -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        run(on_step=cancel)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"attribute": "colour"}, "attribute: 'colour'"),
        ({"pairs": ()}, "concept prompts: empty"),
        ({"seeds": ()}, "seeds: 0"),
    ],
)
def test_a_plan_that_cannot_be_run_is_refused(change, message):
    good = {"pairs": PAIRS, "seeds": (1,), "attribute": "style", "window_size": 2, "sampling": SAMPLING}
    with pytest.raises(ValueError, match=message):
        SearchPlan(**good | change)


def test_the_report_names_the_window_and_its_score():
    text = report_text(run()[1])
    assert "style: layers 4-5 of 8" in text
    assert "layers 4-5     10.00  (-20.00" in text


def test_the_json_holds_all_that_is_needed_to_use_the_result_again():
    content = json.loads(result_json(run()[1], {"host": "test"}))
    assert content["layers"] == [4, 5]
    assert content["layer_count"] == LAYERS
    assert content["scores"] == [30, 30, 30, 30, 10, 30, 30]
    assert content["pairs"][0] == {"concept": "a cat in oil", "target": "a cat"}
    assert content["seeds"] == [7, 8]
    assert content["sampling"]["steps"] == 4


def test_the_csv_has_a_line_for_every_image():
    result = run()[1]
    rows = list(csv.DictReader(io.StringIO(scores_csv(result.plan, result.windows, result.all_scores))))
    assert len(rows) == 4 * 8
    gone = [row for row in rows if row["layers"] == "4-5"]
    assert [(row["seed"], float(row["difference"])) for row in gone] == [("7", -20), ("8", -20)] * 2


def test_the_csv_of_a_search_that_was_stopped_holds_what_was_done():
    result = run()[1]
    lines = scores_csv(result.plan, result.windows, result.all_scores[:6]).splitlines()
    assert len(lines) == 1 + 6
    assert lines[-1].startswith("0-1,a cat in oil,a cat,8,")


def test_the_pictures_are_there_to_look_at():
    result = run()[1]
    assert score_plot(result).shape[2] == 3
    assert contact_sheet(result).shape[0] > 8 * 16
