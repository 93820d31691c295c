"""What a search is saved and drawn as."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace

import numpy as np
import pytest

from loco_core.localization.pictures import ROWS, contact_sheet, layer_shares, search_picture
from loco_core.localization.report import layers_of_search, result_json, scores_csv, search_report
from loco_core.prompts import PromptPair
from made_up_search import LAYERS, PAIRS, Oil, every_effort, exhaustive, plan, run


def test_the_report_of_a_probe_names_the_layers_their_share_and_when_they_act():
    text = str(search_report(run()))
    assert "style: layers 4-5 of 8" in text
    assert "localized: layers 4-5 make 100%" in text
    assert "layers 4-5 by how far the denoising is: 0% 100%, 25% 100%, 50% 100%, 75% 100%; most of it from 0%" in text


def test_the_report_of_all_windows_names_the_best_its_score_and_the_verdict():
    text = str(search_report(run(exhaustive())))
    assert "style: layers 4-5 of 8" in text
    assert "localized: layers 4-5 have 100% of the effect of all layers.\n" in text
    assert "20.00 points ahead of the best window apart from it" in text
    assert "layers 4-5     10.00  (-20.00; 4)" in text


def test_scores_have_an_interval_from_enough_images_on():
    text = str(search_report(run(exhaustive(seeds=(7, 8, 9)))))
    assert "20.00 \u00b1 0.00 points ahead" in text and "(-20.00 \u00b1 0.00; 6)" in text


@every_effort
def test_the_json_holds_all_that_is_needed_to_use_the_result_again(effort):
    content = json.loads(result_json(run(plan(effort=effort)), {"host": "test"}))
    assert (content["layers"], content["smallest_set"], content["layer_count"]) == ([4, 5], [4, 5], 8)
    assert content["shares"][content["windows"].index([4, 5])] == pytest.approx(1)
    scores = {tuple(row["layers"]): row["score"] for row in content["scores"]}
    assert (scores[()], scores[4, 5]) == (30, 10)
    assert (content["verdict"]["kind"], content["effort"]) == ("localized", effort)
    assert content["pairs"][0] == {"concept": "a cat in oil", "target": "a cat"}
    assert (content["seeds"], content["sampling"]["steps"]) == ([7, 8], 4)


def test_the_json_of_a_probe_has_the_share_of_every_window_at_every_level_and_no_score_without_a_scorer():
    content = json.loads(result_json(run(scorer=None), {}))
    assert content["scores"] is None
    assert content["probe"]["steps"] == [0, 1, 2, 3]
    assert content["probe"]["shares"][4] == pytest.approx([1] * 4)


def test_the_layers_in_the_json_are_read_again_and_those_of_no_effect_are_refused():
    found, text = layers_of_search(result_json(run(), {}), "a.json")
    assert found.indices == (4, 5)
    assert text == "layers 4-5 of 8: style, a cat in oil, a dog in oil"
    with pytest.raises(ValueError, match=r"file: 'b.json' found no layers \(no effect"):
        layers_of_search(result_json(run(exhaustive(), engine=Oil()), {}), "b.json")


def test_the_csv_has_a_line_for_every_image():
    result = run(exhaustive())
    rows = list(csv.DictReader(io.StringIO(scores_csv(result.plan, result.cells, result.scores))))
    assert len(rows) == 4 * 9
    gone = [row for row in rows if row["layers"] == "4-5"]
    assert [(row["seed"], float(row["difference"])) for row in gone] == [("7", -20)] * 2 + [("8", -20)] * 2


def test_the_csv_has_no_scores_without_a_scorer():
    result = run(scorer=None)
    rows = list(csv.DictReader(io.StringIO(scores_csv(result.plan, result.cells, result.scores))))
    assert len(rows) == 12
    assert {(row["score"], row["difference"]) for row in rows} == {("", "")}


def test_the_csv_of_a_search_that_was_stopped_holds_what_was_done():
    result = run(exhaustive())
    lines = scores_csv(result.plan, result.cells[:10], result.scores[:10]).splitlines()
    assert len(lines) == 1 + 10
    assert lines[-1].startswith("0-1,keys and values,a dog in oil,a dog,7,")


def test_a_report_tells_how_the_lines_were_taken_and_the_csv_what_was_scored():
    result = run()
    pairs = (PromptPair(r"a (cat:1.2) in oil \(thick\)", "a cat"), PAIRS[1])
    result = replace(result, plan=replace(result.plan, pairs=pairs, taken=("concept, taken as a prompt: x",)))
    assert "concept, taken as a prompt: x" in search_report(result).figures
    row, *_ = csv.DictReader(io.StringIO(scores_csv(result.plan, result.cells, result.scores)))
    assert (row["concept"], row["scored_text"]) == (pairs[0].concept, "a cat in oil (thick)")


@every_effort
def test_captions_are_drawn_as_plain_text(effort):
    drawings = []
    for concept in ("a (cat:1.2) in oil", "a cat in oil"):
        told = run(plan(effort=effort, pairs=(PromptPair(concept, "a cat"), PAIRS[1])))
        drawings.append((search_picture(told, LAYERS), contact_sheet(told)))
    assert all(np.array_equal(*both) for both in zip(*drawings, strict=True))


@every_effort
def test_dollars_in_a_prompt_begin_no_formula(effort):
    result = run(plan(effort=effort, pairs=(PromptPair("money $#$ in oil", "money $#$"), PAIRS[1])))
    assert search_picture(result, LAYERS).ndim == contact_sheet(result).ndim == 3


def test_a_layer_is_coloured_by_the_best_window_that_it_is_in():
    assert layer_shares(run(exhaustive()).shares, 8).tolist() == [0, 0, 0, 0, 1, 1, 0, 0]


@pytest.mark.parametrize(("every", "rows"), [(False, ROWS), (True, 2 + 7)])
def test_a_contact_sheet_shows_the_sets_with_the_most_effect_or_every_one(every, rows):
    """Seven windows of two of eight layers, below the unmodified images and those of all layers."""
    sheets = [contact_sheet(run(exhaustive()), shown) for shown in (True, every)]
    height = run(exhaustive()).thumbnails[0].shape[0] + 4
    assert sheets[0].shape[0] - sheets[1].shape[0] == (2 + 7 - rows) * height
