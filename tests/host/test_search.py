"""LocoGen on the demo model: the search finds what was planted, whatever the seed."""

from __future__ import annotations

import pytest
import torch

from demo.world import COUNTRIES

SUBJECTS = ("a red star", "a blue house", "a green fish", "a yellow boat")


@pytest.fixture(scope="module")
def find(pack, demo, host):
    """find(attribute, pairs, seed) -> the layers found with windows of two, 4 pairs, 1 seed and 10 steps."""
    core, prompts, search = pack("loco_core.engine"), pack("loco_core.prompts"), pack("loco_core.search")
    planning = pack("loco_core.plan")
    scorer = host.nodes.NODE_CLASS_MAPPINGS["LoCo_CLIPScorer"].execute(
        "loco_demo_clip.safetensors", "from the file", False
    )
    engine = pack("nodes.engine").ComfyEngine(demo.model, demo.clip, demo.vae)
    sampling = core.Sampling(10, 2.0, "euler", "normal", 128, 128)

    @torch.no_grad()
    def run(attribute: str, pairs: list[tuple[str, str]], seed: int) -> tuple[int, ...]:
        chosen = tuple(prompts.PromptPair(*pair) for pair in pairs)
        plan = planning.SearchPlan(chosen, (seed,), attribute, 2, sampling)
        return search.search(engine, scorer.result[0], plan, rows_per_batch=32).layers.indices

    return run


@pytest.mark.parametrize("seed", [0, 100, 200, 300, 400])
def test_style_is_found_at_layers_8_and_9(find, seed):
    pairs = [(f"a picture of {subject} in the style of halftone", f"a picture of {subject}") for subject in SUBJECTS]
    assert find("style", pairs, seed) == (8, 9)


@pytest.mark.parametrize("seed", [0, 100, 200, 300, 400])
def test_facts_are_found_at_layers_6_and_7(find, seed):
    own, new = COUNTRIES, (*COUNTRIES[1:], COUNTRIES[0])
    pairs = [tuple(f"a picture of the flag of {name}" for name in pair) for pair in zip(own, new, strict=True)]
    assert find("fact", pairs, seed) == (6, 7)
