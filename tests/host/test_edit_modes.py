"""One operator, three ways to apply it: as weights, as what the layers read, as a LoRA. All do the same."""

from __future__ import annotations

import comfy.sample
import comfy.samplers
import comfy.sd
import pytest
import torch

import nodes
from loco_core.editing.closed_form import EditOperator
from loco_core.editing.lora import edit_lora
from loco_core.editing.solve import solve_edit
from loco_core.models.layers import LayerSet
from made_up import edit_of, recipe, shared_operator

pytestmark = pytest.mark.slow

OWN, OTHER, NEGATIVE = "a red star in the style of woodcut", "a blue fish in the style of woodcut", "a green tree"
LAYERS = (8, 9)
# Of the edit's effect: LoRAs are float16, and an edited weight is rounded where what it reads is not.
SAME = 1e-2


@pytest.fixture(scope="module")
def encode(demo):
    return lambda prompt: nodes.CLIPTextEncode().encode(demo.clip, prompt)[0]


@pytest.fixture(scope="module")
def edit(encoder, demo):
    asked = recipe(["woodcut", "a painting in the style of woodcut"], preserve=["halftone"])
    return solve_edit(encoder(demo.clip), asked)


@torch.no_grad()
def sample(model, positive, negative, cfg: float = 2.0, batch: int = 1, steps: int = 4, **options) -> torch.Tensor:
    noise = torch.randn(batch, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    arguments = (steps, cfg, "euler", "normal", positive, negative, torch.zeros_like(noise))
    return comfy.sample.sample(model, noise, *arguments, disable_pbar=True, seed=7, **options)


def difference(one: torch.Tensor, other: torch.Tensor, unedited: torch.Tensor) -> float:
    """How far two edited latents are from each other, in units of the edit's effect, which must be there."""
    effect = (one - unedited).norm()
    assert effect >= 1e-2 * unedited.norm()
    return ((one - other).norm() / effect).item()


def in_both(model, edit, apply_edit, *arguments, **options) -> list[torch.Tensor]:
    """Latents of the model edited in its weights, and of the model edited in what its layers read."""
    return [sample(apply_edit(model, edit, 1.0, mode), *arguments, **options) for mode in ("weights", "context")]


def test_weights_and_context_do_the_same(demo, encode, edit, apply_edit):
    own, negative = encode(OWN), encode(NEGATIVE)
    weights, context = (
        sample(apply_edit(demo.model, edit, 1.0, mode), own, negative) for mode in ("weights", "context")
    )
    assert difference(weights, context, sample(demo.model, own, negative)) <= 1e-4  # float32 sums in another order


def test_the_stock_lora_loader_does_the_same(engine_of, demo, encode, edit, apply_edit):
    own, negative = encode(OWN), encode(NEGATIVE)
    engine = engine_of(demo.model)
    tensors = edit_lora(edit, engine.layers, engine.key_value_weights)
    loaded, _ = comfy.sd.load_lora_for_models(demo.model, None, tensors, 1.0, 0)
    edited = sample(apply_edit(demo.model, edit, 1.0), own, negative)
    assert difference(edited, sample(loaded, own, negative), sample(demo.model, own, negative)) <= SAME


@pytest.mark.parametrize("strength", [0.5, -1.0])
def test_strength_means_the_same_in_both_modes(demo, encode, edit, apply_edit, strength):
    own, negative = encode(OWN), encode(NEGATIVE)
    weights, context = (
        sample(apply_edit(demo.model, edit, strength, mode), own, negative) for mode in ("weights", "context")
    )
    assert difference(weights, context, sample(demo.model, own, negative)) <= 1e-4


def test_context_touches_no_weight_and_the_second_run_equals_the_first(demo, encode, edit, apply_edit):
    own, negative = encode(OWN), encode(NEGATIVE)
    before = sample(demo.model, own, negative)
    edited = apply_edit(demo.model, edit, 1.0, "context")
    first, second = (sample(edited, own, negative) for _ in range(2))
    assert torch.equal(first, second)
    assert not edited.patches
    assert torch.equal(sample(demo.model, own, negative), before)


# --- what people combine it with --------------------------------------------------------------------------------------


def regional(encode) -> list:
    set_area = nodes.ConditioningSetArea().append
    left, right = set_area(encode(OWN), 64, 128, 0, 0, 1.0)[0], set_area(encode(OTHER), 64, 128, 64, 0, 1.0)[0]
    return left + right


def with_lora(model):
    key = "diffusion_model.output_blocks.4.1.transformer_blocks.0.attn2.to_v.weight"
    changed = model.clone()
    changed.add_patches({key: ("diff", (torch.randn(128, 128, generator=torch.Generator().manual_seed(0)) / 20,))})
    return changed


def with_residuals(model):
    """Adds to the U-Net's output blocks' skips, as a ControlNet does."""
    changed = model.clone()
    changed.set_model_output_block_patch(lambda h, hsp, options: (h, hsp + 0.1 * hsp.mean(1, keepdim=True)))
    return changed


GRAPHS = {
    "CFG 1": ({"cfg": 1.0}, lambda model: model),
    "batch 4": ({"batch": 4}, lambda model: model),
    "a LoRA upstream": ({}, with_lora),
    "residuals": ({}, with_residuals),
}


@pytest.mark.parametrize("graph", GRAPHS)
def test_both_modes_do_the_same_in_any_graph(demo, encode, edit, apply_edit, graph):
    options, prepare = GRAPHS[graph]
    own, negative = encode(OWN), encode(NEGATIVE)
    model = prepare(demo.model)
    weights, context = in_both(model, edit, apply_edit, own, negative, **options)
    assert difference(weights, context, sample(model, own, negative, **options)) <= 1e-4


def test_both_modes_do_the_same_to_regional_prompts(demo, encode, edit, apply_edit):
    own, negative = regional(encode), encode(NEGATIVE)
    weights, context = (
        sample(apply_edit(demo.model, edit, 1.0, mode), own, negative) for mode in ("weights", "context")
    )
    assert difference(weights, context, sample(demo.model, own, negative)) <= 1e-4


@pytest.mark.parametrize("order", ["injector first", "edit first"])
def test_an_edited_layer_reads_what_an_injector_gives_it_whatever_the_order(
    demo, encode, edit, apply_edit, inject_in, order
):
    own, other, negative = encode("a blue fish"), encode(OWN), encode(NEGATIVE)
    results = []
    for mode in ("weights", "context"):
        if order == "injector first":
            model = apply_edit(inject_in(demo.model, other, LAYERS), edit, 1.0, mode)
        else:
            model = inject_in(apply_edit(demo.model, edit, 1.0, mode), other, LAYERS)
        results.append(sample(model, own, negative))
    assert difference(*results, sample(inject_in(demo.model, other, LAYERS), own, negative)) <= 1e-4


def test_two_edits_act_in_the_same_order_in_both_modes(demo, encode, edit, apply_edit):
    own, negative = encode(OWN), encode(NEGATIVE)
    operator = shared_operator(edit)
    second = edit_of(EditOperator(0.5 * operator.down.T.flip(0), operator.up.T), LayerSet(LAYERS, 16))
    results = {}
    for name, order in (("as they stand", (edit, second)), ("turned", (second, edit))):
        for mode in ("weights", "context"):
            model = demo.model
            for one in order:
                model = apply_edit(model, one, 1.0, mode)
            results[name, mode] = sample(model, own, negative)
    plain = sample(demo.model, own, negative)
    for name in ("as they stand", "turned"):
        assert difference(results[name, "weights"], results[name, "context"], plain) <= 1e-3
    assert difference(results["as they stand", "weights"], results["turned", "weights"], plain) > 1e-2


# --- schedule ---------------------------------------------------------------------------------------------------------


def test_from_a_percent_to_another_it_is_a_sampling_in_stages(demo, encode, edit, apply_edit):
    own, negative = encode(OWN), encode(NEGATIVE)
    steps = 8
    model_sampling = demo.model.get_model_object("model_sampling")
    sigmas = comfy.samplers.calculate_sigmas(model_sampling, "normal", steps)
    percent = next(p / 1000 for p in range(1000) if model_sampling.percent_to_sigma(p / 1000) < sigmas[3])
    late = apply_edit(demo.model, edit, 1.0, "context", percent, 1.0)
    scheduled = sample(late, own, negative, steps=steps)
    noise = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    latent = torch.zeros_like(noise)
    arguments = (steps, 2.0, "euler", "normal", own, negative)
    options = {"disable_pbar": True, "seed": 7}
    half = comfy.sample.sample(demo.model, noise, *arguments, latent, last_step=4, force_full_denoise=False, **options)
    edited = apply_edit(demo.model, edit, 1.0)
    staged = comfy.sample.sample(
        edited, torch.zeros_like(noise), *arguments, half, start_step=4, disable_noise=True, **options
    )
    assert difference(scheduled, staged, sample(demo.model, own, negative, steps=steps)) <= 1e-3


def test_weights_have_no_schedule(demo, edit, apply_edit):
    with pytest.raises(ValueError, match="an edit of weights acts from 0 to 1, choose mode 'context'"):
        apply_edit(demo.model, edit, 1.0, "weights", 0.2, 1.0)
    with pytest.raises(ValueError, match="start percent: 0.6, end percent: 0.4"):
        apply_edit(demo.model, edit, 1.0, "context", 0.6, 0.4)


# --- weights that are hard to patch -----------------------------------------------------------------------------------


def test_fp8_weights_are_edited_in_both_modes(fp8, encode, edit, apply_edit):
    own, negative = encode(OWN), encode(NEGATIVE)
    weight = fp8.get_model_object("diffusion_model.output_blocks.4.1.transformer_blocks.0.attn2.to_k.weight")
    assert weight.dtype == torch.float8_e4m3fn
    plain = sample(fp8, own, negative)
    weights, context = in_both(fp8, edit, apply_edit, own, negative)
    # The edited weights are rounded to float8 again, with 3 bits of mantissa: they differ by that.
    assert difference(context, weights, plain) <= 0.35


def test_weights_that_refuse_patches_are_edited_by_context(packed, demo, encode, edit, apply_edit):
    own, negative = encode(OWN), encode(NEGATIVE)
    with pytest.raises(ValueError, match="model: ComfyUI cannot patch its weight .*; choose mode 'context'"):
        apply_edit(packed, edit, 1.0)
    edited = sample(apply_edit(packed, edit, 1.0, "context"), own, negative)
    expected = sample(apply_edit(demo.model, edit, 1.0), own, negative)
    assert difference(edited, expected, sample(packed, own, negative)) <= 0.1  # int8 weights are 1 % of the largest off


# --- the pooled path --------------------------------------------------------------------------------------------------


def test_the_pooled_embedding_is_edited_before_the_model_reads_it(pack):
    operator = EditOperator(torch.ones(4, 1).double(), torch.full((1, 4), 0.5).double())
    editing = pack("nodes.host.editing")
    change = editing.PooledEdit(operator, 1.0, editing.Schedule(0.0, 1.0))
    seen = {}

    def model(x, t, c_concat, c_crossattn, control, options, **rest):
        seen.update(rest)

    y = torch.arange(12.0).reshape(2, 6)
    change(model, torch.zeros(2), torch.ones(2), transformer_options={}, y=y)
    expected = y.clone()
    expected[:, :4] += (y[:, :4].sum(1) / 2)[:, None]
    torch.testing.assert_close(seen["y"], expected)
