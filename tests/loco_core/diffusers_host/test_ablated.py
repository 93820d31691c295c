"""Neurons ablated in the diffusers engine, on the demo model."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("diffusers")

from loco_core.diffusers_host.demo_model import demo_pipeline
from loco_core.diffusers_host.engine import AblatedEngine, DiffusersEngine
from loco_core.models.engine import Row, Sampling
from loco_core.models.layers import LayerSet, Part
from loco_core.neurons.ablation import ChooseBy, Mode, Replacement, ablation, chosen_neurons
from loco_core.neurons.detection import detect_neurons
from loco_core.prompts import Contrast

SAMPLING = Sampling(4, 2.0, "euler", "linspace", 128, 128)
FISH = "a blue fish in the style of woodcut"


@pytest.fixture(scope="module")
def engine() -> DiffusersEngine:
    return DiffusersEngine(demo_pipeline())


@pytest.mark.slow
def test_an_ablation_lasts_as_long_as_its_block_even_when_that_fails(engine):
    (fish,) = engine.encode([FISH])
    plain = ("a star", "a boat", "a house")
    contrast = Contrast(tuple(f"{thing} in the style of woodcut" for thing in plain), plain, ())
    found = detect_neurons(engine, contrast, LayerSet((8, 9), 16))
    before = engine.generate([Row(fish, 0)], SAMPLING)
    for count, mode, changes in ((100, Mode.MEAN, True), (0, Mode.MEAN, False), (100, Mode.SCALE, False)):
        change = ablation(found, chosen_neurons(found, ChooseBy.COUNT, count), mode, scale=1.0)
        with pytest.raises(RuntimeError, match="broken off"), engine.ablated(change):
            assert torch.equal(engine.generate([Row(fish, 0)], SAMPLING), before) != changes
            raise RuntimeError("broken off")
        assert torch.equal(engine.generate([Row(fish, 0)], SAMPLING), before)
        ablated = AblatedEngine(engine, change)
        assert torch.equal(ablated.generate([Row(fish, 0)], SAMPLING), before) != changes


def test_ablations_of_thousands_of_neurons_that_differ_in_one_have_digests_of_their_own(engine):
    def ablated(neuron: int, shift: float, factor: float) -> AblatedEngine:
        neurons, shifts = torch.arange(5000), torch.zeros(5000)
        neurons[2500], shifts[1234] = neuron, shift
        return AblatedEngine(engine, {(8, Part.VALUES): Replacement(neurons, factor, shifts)})

    changes = [(2500, 0.0, 0.0), (6000, 0.0, 0.0), (2500, 1.0, 0.0), (2500, 0.0, 0.5)]
    digests = [ablated(*change).digest() for change in changes]
    assert len(set(digests)) == len(digests)
    assert digests == [ablated(*change).digest() for change in changes]
