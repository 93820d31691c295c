"""The same on SDXL's blocks, where one block holds up to ten cross-attention layers: narrow, with random weights."""

from __future__ import annotations

from types import SimpleNamespace

import comfy.sample
import comfy.sd
import pytest
import torch
from comfy.model_patcher import ModelPatcher

from host.narrow_unets import sdxl_unet
from loco_core.editing.closed_form import EditOperator
from loco_core.editing.lora import edit_lora
from loco_core.models.layers import LayerSet
from made_up import edit_of, shared_operator

pytestmark = pytest.mark.slow

WIDTH = 2048
MODES = ("weights", "context")


@pytest.fixture(scope="module")
def sdxl() -> ModelPatcher:
    return sdxl_unet()


@pytest.fixture(scope="module")
def prompts() -> SimpleNamespace:
    """Two conditionings that differ in their tokens alone."""
    generator = torch.Generator().manual_seed(1)
    own, other = torch.randn(2, 1, 77, WIDTH, generator=generator)
    pooled = torch.randn(1, 1280, generator=generator)
    return SimpleNamespace(own=[[own, {"pooled_output": pooled}]], other=[[other, {"pooled_output": pooled}]])


@torch.no_grad()
def sample(model: ModelPatcher, conditioning: list) -> torch.Tensor:
    noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(2))
    empty, settings = torch.zeros_like(noise), {"disable_pbar": True, "seed": 0}
    return comfy.sample.sample(model, noise, 1, 1.0, "euler", "normal", conditioning, conditioning, empty, **settings)


@pytest.fixture(scope="module")
def inject(inject_in, sdxl, prompts):
    """inject(indices) -> the model whose layers at these indices read the other prompt."""
    return lambda indices: inject_in(sdxl, prompts.other, indices)


@pytest.fixture(scope="module")
def layers(pack, sdxl):
    return pack("nodes.host.layers").read_layers(sdxl)


def test_the_70_layers_are_in_forward_order(layers):
    blocks = [("input", 4, 2), ("input", 5, 2), ("input", 7, 10), ("input", 8, 10), ("middle", 0, 10)]
    blocks += [("output", 0, 10), ("output", 1, 10), ("output", 2, 10)]
    blocks += [("output", 3, 2), ("output", 4, 2), ("output", 5, 2)]
    expected = [(block, number, inner) for block, number, depth in blocks for inner in range(depth)]
    assert [layer.address for layer in layers] == expected


@pytest.mark.parametrize("index", [0, 1, 4, 13, 24, 33, 34, 45, 47, 63, 64, 69])
def test_each_layer_reads_the_other_prompt_as_if_its_own_module_were_given_it(sdxl, layers, prompts, inject, index):
    attention = sdxl.model.get_submodule(layers.modules[index])
    other = prompts.other[0][0]
    hooks = [part.register_forward_pre_hook(lambda *_: (other,)) for part in (attention.to_k, attention.to_v)]
    try:
        expected = sample(sdxl, prompts.own)
    finally:
        for hook in hooks:
            hook.remove()
    assert (expected - sample(sdxl, prompts.own)).abs().max() > 1e-4  # rounding is below 1e-6
    torch.testing.assert_close(sample(inject([index]), prompts.own), expected, rtol=0, atol=0)


def test_injecting_at_all_layers_is_the_other_prompt(sdxl, prompts, inject):
    torch.testing.assert_close(
        sample(inject(range(70)), prompts.own), sample(sdxl, prompts.other), rtol=1e-5, atol=1e-6
    )


def test_the_stock_lora_loader_makes_the_same_change_of_an_exported_lora(engine_of, sdxl, layers):
    generator = torch.Generator().manual_seed(3)
    operator = EditOperator(
        torch.randn(WIDTH, 4, generator=generator, dtype=torch.float64),
        torch.randn(4, WIDTH, generator=generator, dtype=torch.float64) / WIDTH,
    )
    weights, chosen = engine_of(sdxl).key_value_weights, LayerSet((0, 30, 45, 69), 70)
    tensors = edit_lora(edit_of(operator, chosen), layers, weights)
    loaded, _ = comfy.sd.load_lora_for_models(sdxl, None, tensors, 1.0, 0)
    changed = engine_of(loaded).key_value_weights
    for layer in range(70):
        for old, new in zip(weights(layer), changed(layer), strict=True):
            expected = operator.weight_change(old) if layer in chosen else torch.zeros_like(old)
            assert torch.linalg.norm(new - old - expected) <= 2e-3 * torch.linalg.norm(expected)  # float16


@pytest.fixture(scope="module")
def pooled_edit():
    """An edit of two layers and of the pooled embedding, of random operators."""
    generator = torch.Generator().manual_seed(4)

    def operator(width: int) -> EditOperator:
        up, down = (torch.randn(shape, generator=generator, dtype=torch.float64) for shape in ((width, 3), (3, width)))
        return EditOperator(up, down / width)

    return edit_of(operator(WIDTH), LayerSet((30, 45), 70), operator(1280))


def test_the_pooled_path_is_edited_alike_in_weights_in_context_and_by_a_lora(
    pack, engine_of, apply_edit, sdxl, layers, prompts, pooled_edit
):
    label = pack("nodes.host.editing").pooled_weight(sdxl, layers, pooled_edit)
    weights = engine_of(sdxl).key_value_weights
    tensors = edit_lora(pooled_edit, layers, weights, pooled_weight=label)
    loaded, _ = comfy.sd.load_lora_for_models(sdxl, None, tensors, 1.0, 0)
    ways = [apply_edit(sdxl, pooled_edit, mode=mode) for mode in MODES]
    unedited = sample(sdxl, prompts.own)
    weights, context, by_lora = (sample(model, prompts.own) for model in (*ways, loaded))
    layers_alone = edit_of(shared_operator(pooled_edit), pooled_edit.recipe.layers)
    without = sample(apply_edit(sdxl, layers_alone), prompts.own)
    effect = (weights - unedited).norm()
    assert effect > 1e-3
    assert (weights - without).norm() > 0.1 * effect
    assert (weights - context).norm() <= 1e-3 * effect  # float32 sums in another order, in a small effect
    assert (weights - by_lora).norm() <= 1e-2 * effect  # float16


def test_two_pooled_edits_act_in_the_same_order_in_both_modes(apply_edit, sdxl, prompts, pooled_edit):
    one = pooled_edit.pooled
    other = EditOperator(one.width * one.down.T.flip(1), one.up.T / one.width)  # turned, they make another product
    nothing = EditOperator(torch.zeros(WIDTH, 1).double(), torch.zeros(1, WIDTH).double())
    latents = {}
    for name, order in (("as they stand", (one, other)), ("turned", (other, one))):
        for mode in MODES:
            model = sdxl
            for pooled in order:
                model = apply_edit(model, edit_of(nothing, pooled_edit.recipe.layers, pooled), mode=mode)
            latents[name, mode] = sample(model, prompts.own)
    effect = (latents["turned", "weights"] - sample(sdxl, prompts.own)).norm()
    for name in ("as they stand", "turned"):
        assert (
            latents[name, "weights"] - latents[name, "context"]
        ).norm() <= 1e-3 * effect  # float32 sums in another order
    assert (latents["as they stand", "weights"] - latents["turned", "weights"]).norm() > 1e-1 * effect
