"""The prompts in the workflows' fields: they mean something, and do not contradict each other."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from loco_core.editing.recipe import EditRequest, EditSettings, edit_recipe
from loco_core.models.layers import LayerSet
from loco_core.prompts import Attribute, contrast_prompts, prompt_pairs, whole_pairs

API = Path(__file__).resolve().parents[2] / "workflows" / "api"
FIELDS = [
    (path.stem, node["class_type"], node["inputs"])
    for path in sorted(API.glob("*.json"))
    for node in json.loads(path.read_text(encoding="utf-8")).values()
]


def fields(*node_ids: str):
    """The inputs of these nodes in all workflows."""
    found = [(name, inputs) for name, node_id, inputs in FIELDS if node_id in node_ids]
    return pytest.mark.parametrize("inputs", [inputs for _, inputs in found], ids=[name for name, _ in found])


@fields("LoCo_EditSolve")
def test_edits_remove_what_they_do_not_preserve(inputs):
    attribute = Attribute.parse(inputs["attribute"], "attribute")
    request = EditRequest(inputs["concept"], inputs["target"], inputs["preserve"], attribute)
    recipe = edit_recipe(request, EditSettings(), LayerSet((8,), 16), "")
    assert len(recipe.pairs) >= 4 and len(recipe.preserve) > 8


@fields("LoCo_NeuronDetect")
def test_neurons_are_sought_in_as_many_prompts_with_the_style_as_there_are_plain_ones(inputs):
    found = contrast_prompts(inputs["concept"], inputs["without"])
    assert len(found.concept) == 8 and len(found.others) >= 3


@fields("LoCo_LayerSearch")
def test_searches_have_a_target_for_every_concept_and_eight_images_for_every_window(inputs):
    attribute = Attribute.parse(inputs["attribute"], "attribute")
    pairs = prompt_pairs(inputs["concept_prompts"], inputs["target_prompts"], attribute).pairs
    assert all(pair.target and pair.concept.startswith(pair.target) for pair in pairs)
    assert len(pairs) * inputs["seed_count"] == 8


@fields("LoCo_ErasureReport")
def test_reports_compare_prompts_with_the_style_with_the_same_without_it(inputs):
    pairs = whole_pairs(inputs["concept_prompts"], inputs["target_prompts"])
    assert all(pair.concept.startswith(pair.target) for pair in pairs)
