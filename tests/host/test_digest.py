"""Models told apart by what their images depend on."""

from __future__ import annotations

import pytest
import torch

from loco_core.edit import solve_edit
from made_up import recipe


@pytest.fixture(scope="module")
def digest(pack, demo):
    return lambda model: pack("nodes.digest").model_digest(model, demo.clip, demo.vae)


@pytest.fixture(scope="module")
def changes(host, pack, demo):
    """Models with what other nodes put onto them, by what it is."""
    layers = pack("loco_core.layers").LayerSet((8, 9), 16)
    inject, editing = pack("nodes.injection").inject, pack("nodes.editing")
    conditioning = {text: host.nodes.CLIPTextEncode().encode(demo.clip, text)[0] for text in ("a fish", "a star")}

    def injected(text: str, strength: float = 1.0):
        return inject(demo.model, conditioning[text], layers, "keys and values", "positive", strength, 0.0, 1.0)

    def edited(concept: str, mode: str):
        def encode(prompts):
            return pack("nodes.engine").encode(demo.clip, prompts)

        return editing.apply_edit(demo.model, solve_edit(encode, recipe([concept])), 1.0, mode)

    return {
        "injected": lambda: injected("a fish"),
        "injected another prompt": lambda: injected("a star"),
        "injected by half": lambda: injected("a fish", 0.5),
        "edited": lambda: edited("woodcut", "weights"),
        "edited otherwise": lambda: edited("halftone", "weights"),
        "edited in context": lambda: edited("woodcut", "context"),
    }


def test_the_same_nodes_on_the_same_checkpoint_loaded_again_give_the_same_digest(host, demo, digest, changes):
    again = host.nodes.CheckpointLoaderSimple().load_checkpoint("loco_demo.safetensors")[0]
    assert digest(again) == digest(demo.model)
    for change in changes.values():
        assert digest(change()) == digest(change())


def test_what_other_nodes_have_changed_is_another_model(demo, digest, changes):
    digests = [digest(demo.model), *(digest(change()) for change in changes.values())]
    assert len(set(digests)) == len(digests)


def test_one_changed_weight_tensor_is_another_model(demo, digest):
    weight = next(demo.model.model.diffusion_model.parameters())
    before = digest(demo.model)
    with torch.no_grad():
        own = weight.clone()
        weight.mul_(1.5)
    try:
        assert digest(demo.model) != before
    finally:
        with torch.no_grad():
            weight.copy_(own)
    assert digest(demo.model) == before
