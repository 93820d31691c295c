"""LocoGen on the demo model: the search finds what was planted, whatever the seed."""

from __future__ import annotations

import pytest
import torch

from demo.world import COLOURS, COUNTRIES
from loco_core.localization.plan import SearchPlan
from loco_core.localization.search import search
from loco_core.localization.verdict import Kind
from loco_core.models.engine import Sampling
from loco_core.prompts import Attribute, PromptPair

pytestmark = pytest.mark.slow

SUBJECTS = ("a red star", "a blue house", "a green fish", "a yellow boat")


@pytest.fixture(scope="module")
def find(engine_of, demo, host):
    """find(attribute, pairs, seed) -> the result of a search with windows of two, 2 seeds and 10 steps."""
    scorer = host.nodes.NODE_CLASS_MAPPINGS["LoCo_CLIPScorer"].execute(
        "loco_demo_clip.safetensors", "from the file", False
    )
    engine = engine_of(demo.model, demo.clip, demo.vae)
    sampling = Sampling(10, 2.0, "euler", "normal", 128, 128)

    @torch.no_grad()
    def run(attribute: Attribute, pairs: list[tuple[str, str]], seed: int):
        chosen = tuple(PromptPair(*pair) for pair in pairs)
        plan = SearchPlan(chosen, (seed, seed + 1), attribute, 2, sampling)
        return search(engine, scorer.result[0], plan, rows_per_batch=32)

    return run


def in_style(style: str) -> list[tuple[str, str]]:
    return [(f"a picture of {subject} in the style of {style}", f"a picture of {subject}") for subject in SUBJECTS]


@pytest.mark.parametrize("seed", [0, 100, 200])
def test_a_style_is_localized_at_layers_8_and_9(find, seed):
    result = find(Attribute.STYLE, in_style("halftone"), seed)
    assert (result.verdict.kind, result.layers.indices) == (Kind.LOCALIZED, (8, 9))


@pytest.mark.parametrize("seed", [0, 100, 200])
def test_facts_are_localized_at_layers_6_and_7(find, seed):
    own, new = COUNTRIES, (*COUNTRIES[1:], COUNTRIES[0])
    pairs = [tuple(f"a picture of the flag of {name}" for name in pair) for pair in zip(own, new, strict=True)]
    result = find(Attribute.FACT, pairs, seed)
    assert (result.verdict.kind, result.layers.indices) == (Kind.LOCALIZED, (6, 7))


@pytest.mark.parametrize(("one", "other"), [("star", "house"), ("fish", "tree")])
def test_an_object_is_not_localized(find, one, other):
    pairs = [tuple(f"a picture of a {colour} {name}" for name in (one, other)) for colour in list(COLOURS)[:4]]
    assert find(Attribute.OBJECT, pairs, 0).verdict.kind == Kind.SPREAD


def test_a_style_that_the_model_does_not_know_has_no_effect_and_costs_no_window(find):
    result = find(Attribute.STYLE, in_style("xyzzy"), 0)
    assert result.verdict.kind == Kind.NO_EFFECT
    assert {cell.window for cell in result.cells} == {None, result.table.whole}
    assert result.cost <= 2 * 2 * len(SUBJECTS)  # two seeds: unmodified, and all layers
