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

PLANTED = ["style", "fact"]
SUBJECTS = ("a red star", "a blue house", "a green fish", "a yellow boat")


@pytest.fixture(scope="module")
def find(engine_of, demo, host):
    """find(attribute, pairs, seed, ...) -> the result of a search with 2 seeds and 10 steps, and a scorer."""
    scorer = host.nodes.NODE_CLASS_MAPPINGS["LoCo_CLIPScorer"].execute(
        "loco_demo_clip.safetensors", "from the file", False
    )
    engine = engine_of(demo.model, demo.clip, demo.vae)
    sampling = Sampling(10, 2.0, "euler", "normal", 128, 128)

    @torch.no_grad()
    def run(attribute: Attribute, pairs: list[tuple[str, str]], seed: int, **asked):
        chosen = tuple(PromptPair(*pair) for pair in pairs)
        plan = SearchPlan(chosen, (seed, seed + 1), attribute, sampling, **asked)
        return search(engine, scorer.result[0], plan, rows_per_batch=32)

    return run


def in_style(style: str) -> list[tuple[str, str]]:
    return [(f"a picture of {subject} in the style of {style}", f"a picture of {subject}") for subject in SUBJECTS]


def flags() -> list[tuple[str, str]]:
    own, new = COUNTRIES, (*COUNTRIES[1:], COUNTRIES[0])
    return [tuple(f"a picture of the flag of {name}" for name in pair) for pair in zip(own, new, strict=True)]


@pytest.mark.parametrize("seed", [0, 100, 200])
def test_a_style_is_localized_at_layers_8_and_9_and_images_confirm_it(find, seed):
    result = find(Attribute.STYLE, in_style("halftone"), seed)
    assert (result.kind, result.layers.indices, result.confirmed) == (Kind.LOCALIZED, (8, 9), True)


@pytest.mark.parametrize("seed", [0, 100, 200])
def test_facts_are_localized_at_layers_6_and_7_and_images_confirm_it(find, seed):
    result = find(Attribute.FACT, flags(), seed)
    assert (result.kind, result.layers.indices, result.confirmed) == (Kind.LOCALIZED, (6, 7), True)


@pytest.mark.parametrize(
    ("attribute", "pairs", "place"),
    [(Attribute.STYLE, in_style("halftone"), (8, 9)), (Attribute.FACT, flags(), (6, 7))],
    ids=PLANTED,
)
def test_images_of_every_window_say_the_same(find, attribute, pairs, place):
    result = find(attribute, pairs, 0, effort="exhaustive", window_size=2)
    assert (result.kind, result.layers.indices) == (Kind.LOCALIZED, place)


def objects(one: str, other: str) -> list[tuple[str, str]]:
    return [tuple(f"a picture of a {colour} {name}" for name in (one, other)) for colour in list(COLOURS)[:4]]


@pytest.mark.parametrize(("one", "other"), [("star", "house"), ("fish", "tree")])
def test_an_object_is_not_localized_in_any_two_layers(find, one, other):
    assert find(Attribute.OBJECT, objects(one, other), 0, window_size=2).kind is Kind.SPREAD


def test_layers_that_act_only_together_are_found_where_the_window_size_is_not_given(find):
    """No two of them make half of the difference; the three do, and images agree."""
    result = find(Attribute.OBJECT, objects("fish", "tree"), 0)
    assert (result.kind, result.layers.indices, result.confirmed) == (Kind.LOCALIZED, (10, 11, 12), True)
    assert max(result.located.probe.share(window) for window in result.located.tried) < 0.5


def test_a_style_that_the_model_does_not_know_makes_hardly_any_difference(find):
    result = find(Attribute.STYLE, in_style("xyzzy"), 0)
    assert result.kind is Kind.NO_EFFECT
    assert not result.layers


def test_images_show_no_style_that_the_model_does_not_know_and_no_window_is_tried(find):
    result = find(Attribute.STYLE, in_style("xyzzy"), 0, effort="exhaustive", window_size=2)
    assert result.kind is Kind.NO_EFFECT
    assert {cell.window for cell in result.cells} == {None, result.table.whole}


@pytest.mark.parametrize(("pairs", "place"), [(in_style("woodcut")[:2], (8, 9)), (flags()[:2], (6, 7))], ids=PLANTED)
def test_the_node_finds_it_with_default_settings_and_without_a_scorer(execute, demo, pairs, place):
    concepts, targets = ("\n".join(texts) for texts in zip(*pairs, strict=True))
    asked = {"concept_prompts": concepts, "target_prompts": targets, "width": 128, "height": 128}
    layers, smallest, *_, report = execute("LoCo_LayerSearch", model=demo.model, clip=demo.clip, vae=demo.vae, **asked)
    assert layers.indices == smallest.indices == place
    assert "localized: layers" in report
