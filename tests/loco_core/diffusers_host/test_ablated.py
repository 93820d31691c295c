"""Neurons ablated in the diffusers engine, on the demo model."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("diffusers")

from loco_core.diffusers_host.demo_model import demo_pipeline
from loco_core.diffusers_host.engine import AblatedEngine, DiffusersEngine
from loco_core.models.engine import Row, Sampling
from loco_core.models.layers import LayerSet
from loco_core.neurons.detection import ablation, chosen_neurons, detect_neurons

SAMPLING = Sampling(4, 2.0, "euler", "linspace", 128, 128)
FISH = "a blue fish in the style of woodcut"


@pytest.fixture(scope="module")
def engine() -> DiffusersEngine:
    return DiffusersEngine(demo_pipeline())


def test_an_ablation_lasts_as_long_as_its_block_even_when_that_fails(engine):
    (fish,) = engine.encode([FISH])
    styled = [f"a {thing} in the style of woodcut" for thing in ("star", "boat", "house")]
    plain = ["a star", "a boat", "a house"]
    found = detect_neurons(engine.encode, engine.key_value_weights, styled, plain, LayerSet((8, 9), 16))
    before = engine.generate([Row(fish, 0)], SAMPLING)
    for count, mode, scale, changes in ((100, "mean", 0.0, True), (0, "mean", 0.0, False), (100, "scale", 1.0, False)):
        change = ablation(found, chosen_neurons(found, "count", count, 0.0), mode, scale)
        with pytest.raises(RuntimeError, match="broken off"), engine.ablated(change):
            assert torch.equal(engine.generate([Row(fish, 0)], SAMPLING), before) != changes
            raise RuntimeError("broken off")
        assert torch.equal(engine.generate([Row(fish, 0)], SAMPLING), before)
        ablated = AblatedEngine(engine, change)
        assert torch.equal(ablated.generate([Row(fish, 0)], SAMPLING), before) != changes
