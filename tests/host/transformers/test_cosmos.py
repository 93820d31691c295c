"""Anima and Cosmos-Predict2: every node's work on transformers whose blocks read one and the same text embedding."""

from __future__ import annotations

import inspect
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import comfy.sd
import comfy.supported_models
import numpy as np
import pytest
import torch
from comfy.ldm.cosmos import predict2
from comfy.model_patcher import ModelPatcher

from host.full_size.measures import relative
from host.transformers.narrow import COSMOS, narrow_lora
from loco_core.models.engine import Row, Sampling
from loco_core.models.families.cosmos import ANIMA, COSMOS_PREDICT2

# Whether this ComfyUI lets patches change what the blocks get, as it does from 0.29 on.
PATCHED = "transformer_options" in inspect.signature(predict2.Attention.compute_qkv).parameters
pytestmark = pytest.mark.skipif(not PATCHED, reason="ComfyUI 0.29 is the first that these models can be changed in")

OWN, OTHER = "a red star", "a painting of a fish"
# Beyond 512 tokens of T5: the blocks get more rows than of other prompts.
PROMPTS = {"own": OWN, "other": OTHER, "long": ", ".join(["a very long prompt about nothing"] * 90), "empty": ""}
EVERY = range(6)
SAMPLING = Sampling(steps=2, guidance=1.0, sampler="euler", scheduler="normal", width=64, height=64)


@pytest.fixture(autouse=True)
def small_images(pack, monkeypatch) -> None:
    """In which nodes measure that ask for no size: those of the published models take a processor minutes."""
    monkeypatch.setattr(pack("loco_core.models.families.transformer").Transformer, "image_size", lambda *_: 64)


@pytest.fixture
def own(narrow_model, encoded) -> SimpleNamespace:
    """The conditionings of the prompts."""
    return SimpleNamespace(**{name: encoded(narrow_model.clip, text) for name, text in PROMPTS.items()})


@pytest.fixture
def contexts(narrow_model, engine_of) -> SimpleNamespace:
    """What the blocks get for the prompts: [1, T, d]."""
    embeddings = engine_of(narrow_model.model, narrow_model.clip).encode(list(PROMPTS.values()))
    return SimpleNamespace(**{name: one.tokens[None] for name, one in zip(PROMPTS, embeddings, strict=True)})


@contextmanager
def given(model: ModelPatcher, blocks, context: torch.Tensor) -> Iterator[None]:
    """The reference: the projections of these blocks get another context."""
    hooks = [
        part.register_forward_pre_hook(lambda _, inputs: (context.expand(len(inputs[0]), -1, -1),))
        for block in blocks
        for attention in [model.model.diffusion_model.blocks[block].cross_attn]
        for part in (attention.k_proj, attention.v_proj)
    ]
    yield
    for hook in hooks:
        hook.remove()


# --- the blocks -------------------------------------------------------------------------------------------------------


def test_the_blocks_are_listed_in_forward_order_by_the_names_of_their_weights(pack, narrow_model):
    layers, weights = pack("nodes.host.layers").read_layers(narrow_model.model), narrow_model.model.model.state_dict()
    assert layers.modules == tuple(f"diffusion_model.blocks.{number}.cross_attn" for number in EVERY)
    assert [layer.address for layer in layers] == [("block", number, 0) for number in EVERY]
    assert layers.width == 64
    assert all(f"{module}.{name}.weight" in weights for module in layers.modules for name in ("k_proj", "v_proj"))


@pytest.mark.parametrize(("blocks", "name"), [(28, "Cosmos-Predict2 2B"), (36, "Cosmos-Predict2 14B")])
def test_the_blocks_of_full_size_models_are_found(pack, blocks, name):
    config = {"image_model": "cosmos_predict2", **COSMOS, "num_blocks": blocks}
    model = comfy.supported_models.CosmosT2IPredict2(config).get_model({}, device="meta")
    layers = pack("nodes.host.layers").read_layers(ModelPatcher(model, torch.device("meta"), torch.device("meta")))
    assert (len(layers), layers.model_name, layers.family) == (blocks, name, COSMOS_PREDICT2)


def test_anima_is_told_from_cosmos_predict2(pack, narrow_model):
    family = pack("nodes.host.layers").read_layers(narrow_model.model).family
    assert family is (ANIMA if hasattr(narrow_model.model.model.diffusion_model, "llm_adapter") else COSMOS_PREDICT2)


def test_a_model_of_videos_is_refused(pack):
    config = {"image_model": "cosmos_predict2", **COSMOS, "in_channels": 17}
    model = comfy.supported_models.CosmosI2VPredict2(config).get_model({}, device="meta")
    with pytest.raises(ValueError, match="^model: it makes videos of images"):
        pack("nodes.host.layers").read_layers(ModelPatcher(model, torch.device("meta"), torch.device("meta")))


def test_a_host_that_lets_nobody_change_what_blocks_get_is_to_be_updated(pack, narrow_model, monkeypatch):
    monkeypatch.setattr(predict2.Attention, "compute_qkv", lambda self, x, context=None, rope_emb=None: None)
    with pytest.raises(ValueError, match="^model: this ComfyUI .* update it to 0.29 or later"):
        pack("nodes.host.layers").read_layers(narrow_model.model)


# --- prompts ----------------------------------------------------------------------------------------------------------


def test_prompts_end_with_their_last_word_and_are_padded_with_zeros(narrow_model, engine_of):
    (embedding,) = engine_of(narrow_model.model, narrow_model.clip).encode([OWN])
    (chunk,) = embedding.chunks
    assert (chunk.first_subject, chunk.end_of_text, chunk.stop) == (0, 4, 512)  # a, red and star's two tokens
    assert not embedding.tokens[5:].any()
    assert embedding.tokens[:5].any(1).all()


def test_anima_needs_the_model_to_encode(pack, narrow_model):
    encode = pack("nodes.host.text_encoder").encode
    if pack("nodes.host.layers").read_layers(narrow_model.model).family is COSMOS_PREDICT2:
        assert encode(narrow_model.clip, [OWN])
    else:
        with pytest.raises(ValueError, match="^clip: .* connect the model too"):
            encode(narrow_model.clip, [OWN])


def test_without_a_change_images_are_those_of_the_stock_nodes(narrow_model, engine_of, sampled, own):
    engine = engine_of(narrow_model.model, narrow_model.clip, narrow_model.vae)
    with torch.inference_mode():
        made = engine.generate([Row(embedding, seed=0) for embedding in engine.encode([OWN])], SAMPLING)
        latents = sampled(narrow_model.model, own.own, own.empty)
        expected = narrow_model.vae.decode(latents)[:, 0]
    torch.testing.assert_close(made, expected, rtol=0, atol=1e-6)  # float32


# --- another prompt for some blocks -----------------------------------------------------------------------------------


@pytest.mark.parametrize("other", ["other", "long", "empty"])
@pytest.mark.parametrize("cfg", [1.0, 5.0])
def test_no_block_is_the_one_prompt_and_all_are_the_other(narrow_model, inject_in, sampled, own, other, cfg):
    model, second = narrow_model.model, getattr(own, other)
    plain = sampled(model, own.own, own.empty, cfg)
    assert torch.equal(sampled(inject_in(model, second, []), own.own, own.empty, cfg), plain)
    # Rows of two lengths are repeated to a common one: rounding alone is left.
    atol = 1e-4 if other == "long" else 0
    whole = sampled(inject_in(model, second, EVERY), own.own, own.empty, cfg)
    torch.testing.assert_close(whole, sampled(model, second, own.empty, cfg), rtol=0, atol=atol)


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("blocks", [[0], [1], [2], [3], [4], [5], [1, 2], [0, 3, 5]], ids=str)
def test_blocks_read_the_other_prompt_as_if_their_projections_were_given_it(
    narrow_model, inject_in, sampled, own, contexts, blocks, batch
):
    model = narrow_model.model
    with given(model, blocks, contexts.other):
        expected = sampled(model, own.own, own.empty, batch=batch)
    assert (expected - sampled(model, own.own, own.empty, batch=batch)).abs().max() > 1e-3
    injected = sampled(inject_in(model, own.other, blocks), own.own, own.empty, batch=batch)
    torch.testing.assert_close(injected, expected, rtol=0, atol=1e-5)


def test_what_another_prompt_costs_and_how_exact_it_is(
    request, narrow_model, inject_in, sampled, own, contexts, record_property
):
    """The figures of benchmarks/transformers.py."""
    model = narrow_model.model

    def seconds(one: ModelPatcher) -> float:
        begun = time.perf_counter()
        sampled(one, own.own, own.empty, side=32)
        return time.perf_counter() - begun

    plain, other = sampled(model, own.own, own.empty), sampled(model, own.other, own.empty)
    none, whole, window = (
        sampled(inject_in(model, own.other, blocks), own.own, own.empty) for blocks in ([], EVERY, [2, 3])
    )
    with given(model, [2, 3], contexts.other):
        expected = sampled(model, own.own, own.empty)
    injected = inject_in(model, own.other, [5])
    seconds(model)
    times = np.array([[seconds(one) for one in (model, injected)] for _ in range(5)])
    figures = {
        "blocks": len(EVERY),
        "none_difference": relative(none - plain, plain),
        "all_difference": relative(whole - other, other),
        "reference_difference": relative(window - expected, expected),
        "step_cost": round(float(np.median(times[:, 1] / times[:, 0])), 2),
    }
    record_property(f"transformers {request.node.callspec.params['narrow_model']}", figures)
    assert figures["none_difference"] == figures["all_difference"] == 0
    assert figures["reference_difference"] <= 1e-5  # float32
    assert figures["step_cost"] <= 1.5  # nothing is computed twice; a busy machine


def test_the_effects_of_the_parts_are_of_the_order_of_the_whole(narrow_model, inject_in, sampled, own):
    model = narrow_model.model
    plain = sampled(model, own.own, own.empty)
    effects = [
        sampled(inject_in(model, own.other, part), own.own, own.empty) - plain for part in ([0, 1], [2, 3], [4, 5])
    ]
    whole = sampled(model, own.other, own.empty) - plain
    assert 0.3 <= (sum(effects).norm() / whole.norm()).item() <= 3


@pytest.mark.parametrize("branch", ["positive", "negative", "both"])
def test_branches_are_told_apart_whether_their_calls_are_joined_or_not(
    narrow_model, inject_in, sampled, own, branch, monkeypatch
):
    model, blocks = narrow_model.model, [1, 4]
    joined = sampled(inject_in(model, own.other, blocks, branch=branch), own.own, own.empty, cfg=5.0)
    monkeypatch.setattr(ModelPatcher, "memory_required", lambda *_: 1e18)  # no two rows fit
    split = sampled(inject_in(model, own.other, blocks, branch=branch), own.own, own.empty, cfg=5.0)
    torch.testing.assert_close(split, joined, rtol=0, atol=1e-4)
    assert (joined - sampled(model, own.own, own.empty, cfg=5.0)).abs().max() > 1e-3


def test_other_patches_act_on_what_is_injected_whatever_the_order_of_the_nodes(
    narrow_model, inject_in, sampled, own, contexts
):
    def half(q, k, v, extra_options, **_):
        return {"k": 0.5 * k, "v": 0.5 * v}

    before = narrow_model.model.clone()
    before.set_model_attn2_patch(half)
    after = inject_in(narrow_model.model, own.other, [2])
    after.set_model_attn2_patch(half)
    with given(before, [2], 0.5 * contexts.other):
        expected = sampled(before, own.own, own.empty)
    for model in (inject_in(before, own.other, [2]), after):
        torch.testing.assert_close(sampled(model, own.own, own.empty), expected, rtol=0, atol=1e-5)


def test_a_lora_before_the_injection_acts_in_its_blocks_too(narrow_model, inject_in, sampled, own, contexts):
    lora, _ = comfy.sd.load_lora_for_models(narrow_model.model, None, narrow_lora([2, 3]), 1.0, 0)
    with given(lora, [2], contexts.other):
        expected = sampled(lora, own.own, own.empty)
    assert (expected - sampled(inject_in(narrow_model.model, own.other, [2]), own.own, own.empty)).abs().max() > 1e-3
    torch.testing.assert_close(
        sampled(inject_in(lora, own.other, [2]), own.own, own.empty), expected, rtol=0, atol=1e-5
    )


# --- edits, neurons ---------------------------------------------------------------------------------------------------


@pytest.fixture
def edit(execute, narrow_model):
    (layers, _) = execute("LoCo_LayerSelect", model=narrow_model.model, layers="b2-3, 5")
    assert layers.indices == (2, 3, 5)
    asked = {"concept": "Monet", "preserve": "a fish", "settings": "by hand"}
    return execute("LoCo_EditSolve", model=narrow_model.model, clip=narrow_model.clip, layers=layers, size=64, **asked)[
        0
    ]


PROMPT = "a house in the style of Monet"


def test_an_edit_is_the_same_in_weights_in_context_and_as_a_lora(
    host, execute, narrow_model, apply_edit, sampled, encoded, own, edit
):
    prompt, model = encoded(narrow_model.clip, PROMPT), narrow_model.model
    plain = sampled(model, prompt, own.empty)
    weights, context = (
        sampled(apply_edit(model, edit, mode=mode), prompt, own.empty) for mode in ("weights", "context")
    )
    name, _ = execute("LoCo_EditExportLoRA", model=model, edit=edit, filename_prefix="loras/narrow")
    (lora,) = host.nodes.LoraLoaderModelOnly().load_lora_model_only(model, name.split("/")[-1], 1.0)
    effect = (weights - plain).norm()
    assert effect > 1e-3 * plain.norm()
    assert (weights - context).norm() <= 1e-3 * effect  # float32 sums in another order
    assert (weights - sampled(lora, prompt, own.empty)).norm() <= 2e-2 * effect  # float16, and what its rank leaves out


def test_a_lora_is_named_as_kohyas_scripts_do_alone(execute, narrow_model, edit):
    with pytest.raises(ValueError, match="^naming: .* choose 'kohya'"):
        execute("LoCo_EditExportLoRA", model=narrow_model.model, edit=edit, naming="diffusers")


def test_edits_are_combined(execute, narrow_model, edit):
    both, _ = execute("LoCo_EditCombine", clip=narrow_model.clip, model=narrow_model.model, edit_1=edit, edit_2=edit)
    assert both.recipe.pairs == edit.recipe.pairs


def test_neurons_are_ablated_at_run_time_as_in_the_weights(execute, narrow_model, sampled, encoded, own):
    model, asked = narrow_model.model, {"concept": "Monet", "without": "a photo of a cat\na photo of a dog\nPicasso"}
    (layers, _) = execute("LoCo_LayerSelect", model=model, layers="2-3")
    neurons = execute("LoCo_NeuronDetect", model=model, clip=narrow_model.clip, layers=layers, **asked)[0]
    prompt = encoded(narrow_model.clip, PROMPT)
    asked = {"count": 32, "mode": "zero"}
    at_run_time, weights = (
        execute("LoCo_NeuronAblate", model=model, neurons=neurons, apply=apply, **asked)[0]
        for apply in ("run time", "weights")
    )
    latents = sampled(at_run_time, prompt, own.empty)
    assert (latents - sampled(model, prompt, own.empty)).abs().max() > 1e-4
    torch.testing.assert_close(latents, sampled(weights, prompt, own.empty), rtol=0, atol=1e-5)


# --- searches ---------------------------------------------------------------------------------------------------------


def test_the_probe_finds_layers_and_draws_the_model(execute, narrow_model):
    asked = {"concept_prompts": OTHER, "target_prompts": OWN, "width": 64, "height": 64, "steps": 4}
    layers, smallest, picture, report, *_ = execute(
        "LoCo_Probe", model=narrow_model.model, clip=narrow_model.clip, **asked
    )
    assert 0 < len(smallest) <= 6 and len(layers) > 0
    assert picture.shape[0] == 1
    assert "layers" in report


def test_a_search_makes_images_of_the_windows(execute, narrow_model):
    asked = {"concept_prompts": OTHER, "target_prompts": OWN, "width": 64, "height": 64, "steps": 2, "seed_count": 1}
    sockets = {"model": narrow_model.model, "clip": narrow_model.clip, "vae": narrow_model.vae}
    layers, *_ = execute("LoCo_LayerSearch", **sockets, **asked)
    assert len(layers) > 0


def test_a_concept_is_removed_in_one_node(execute, narrow_model, sampled, encoded, own):
    asked = {"concept": "Monet", "preserve": "a fish", "target": "a painting", "attribute": "style", "size": 64}
    model, report, layers, edit = execute("LoCo_Remove", model=narrow_model.model, clip=narrow_model.clip, **asked)
    prompt = encoded(narrow_model.clip, PROMPT)
    assert len(layers) and report
    assert (sampled(model, prompt, own.empty) - sampled(narrow_model.model, prompt, own.empty)).abs().max() > 1e-4


def test_a_model_is_known_again_after_it_has_sampled(narrow_model, engine_of, sampled, own):
    engine = engine_of(narrow_model.model, narrow_model.clip, narrow_model.vae)
    before = engine.digest()
    sampled(narrow_model.model, own.own, own.empty)
    assert engine.digest() == before
