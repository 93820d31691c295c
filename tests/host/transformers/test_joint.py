"""Two text streams and one image: another prompt for some blocks of transformers whose blocks change the text."""

from __future__ import annotations

import time
from types import SimpleNamespace

import comfy.sample
import comfy.supported_models
import numpy as np
import pytest
import torch
from comfy.model_patcher import ModelPatcher
from comfy_extras.nodes_slg import SkipLayerGuidanceDiT

from host.full_size.measures import relative
from host.transformers.narrow import JOINT, WIDTH, joint_model, patcher
from loco_core.models.engine import Chunk, Intervention, Row, Sampling, TextEmbedding
from loco_core.models.layers import LayerSet, Part

EVERY = range(6)
KINDS = {
    "sd3": ["joint"] * 6,
    "flux": ["double"] * 3 + ["single"] * 3,
    "flux2": ["double"] * 3 + ["single"] * 3,
    "chroma": ["double"] * 3 + ["single"] * 3,
    "z_image": ["layer"] * 6,
    "qwen": ["block"] * 6,
    "wan": ["block"] * 6,
}


@pytest.fixture
def prompts(family) -> SimpleNamespace:
    """Conditionings of several lengths, which share their pooled embedding. Flux.2 pads them to 512 tokens."""
    tokens = 512 if family == "flux2" else 20
    generator = torch.Generator().manual_seed(1)
    settings = {"pooled_output": torch.randn(1, 32, generator=generator)}

    def prompt(count: int) -> list:
        return [[torch.randn(1, count, WIDTH, generator=generator), settings]]

    return SimpleNamespace(own=prompt(tokens), other=prompt(tokens), short=prompt(7), empty=prompt(tokens))


@torch.inference_mode()
def sample(
    model: ModelPatcher, positive: list, negative: list, cfg: float = 1.0, batch: int = 1, side: int = 8
) -> torch.Tensor:
    channels = model.get_model_object("latent_format").latent_channels
    empty = comfy.sample.fix_empty_latent_channels(model, torch.zeros(batch, channels, side, side))
    noise = torch.randn(empty.shape, generator=torch.Generator().manual_seed(2))
    options = {"seed": 0, "disable_pbar": True}
    return comfy.sample.sample(model, noise, 2, cfg, "euler", "normal", positive, negative, empty, **options)


# --- the blocks -------------------------------------------------------------------------------------------------------


def test_the_blocks_are_listed_in_forward_order_by_the_names_of_their_weights(pack, family, model):
    layers = pack("nodes.host.layers").read_layers(model)
    assert [layer.block for layer in layers] == KINDS[family]
    called = []
    hooks = [
        model.get_model_object(name).register_forward_pre_hook(lambda *_, name=name: called.append(name))
        for name in layers.modules
    ]
    prompt = [[torch.randn(1, 5, WIDTH), {"pooled_output": torch.randn(1, 32)}]]
    sample(model, prompt, prompt)
    for hook in hooks:
        hook.remove()
    assert tuple(called[:6]) == layers.modules
    assert layers.width == WIDTH


@pytest.mark.parametrize(
    ("text", "expected"),
    [("double 0-1, s2", (0, 1, 5)), ("single_blocks.1", (4,)), ("2-4", (2, 3, 4)), ("all", (*EVERY,))],
)
def test_blocks_of_flux_are_named_by_their_kind(pack, text, expected):
    layers = pack("nodes.host.layers").read_layers(joint_model("flux"))
    assert layers.parse(text).indices == expected


@pytest.mark.parametrize(
    ("name", "config", "count", "known"),
    [
        ("flux", {"depth": 19, "depth_single_blocks": 38}, 57, "Flux.1"),
        ("chroma", {"depth": 19, "depth_single_blocks": 38}, 57, "Chroma"),
        ("sd3", {"num_blocks": 24}, 24, "SD 3 or 3.5 Medium"),
        ("sd3", {"num_blocks": 38}, 38, "SD 3.5 Large"),
        ("qwen", {"num_layers": 60}, 60, "Qwen-Image"),
        ("z_image", {"n_layers": 30}, 30, "Z-Image"),
        ("wan", {"num_layers": 40}, 40, "Wan 2.x, 40 blocks"),
    ],
)
def test_models_are_known_by_how_many_blocks_they_have(pack, name, config, count, known):
    kind, own = JOINT[name]
    layers = pack("nodes.host.layers").read_layers(patcher(kind({**kind.unet_config, **own, **config})))
    assert (len(layers), layers.model_name) == (count, known)


def test_a_transformer_whose_blocks_are_not_known_is_refused_by_name(host, pack):
    config = {"hidden_size": 64, "depth": 1, "num_heads": 2, "cond_drop_prob": 0.0, "kv_compress_config": None}
    model = patcher(comfy.supported_models.PixArtAlpha({"image_model": "pixart_alpha", **config}))
    with pytest.raises(ValueError, match="^model: how a PixArtMS reads the prompt is not known to this pack"):
        pack("nodes.host.layers").read_layers(model)


def test_what_has_no_static_keys_has_no_neurons(pack, execute, demo, model):
    with pytest.raises(ValueError, match="^model: the blocks of .* they have no neurons of the prompt"):
        pack("nodes.host.layers").read_layers(model).projection(1, "keys")
    asked = {"concept": "x", "without": "a cat", "layers": LayerSet((1,), 6)}
    with pytest.raises(ValueError, match="^model: the blocks of .* they have no neurons of the prompt"):
        execute("LoCo_NeuronDetect", model=model, clip=demo.clip, **asked)


# --- two streams ------------------------------------------------------------------------------------------------------


def by_hand(model: ModelPatcher, name: str, chosen: list[int], own: list, other: list):
    """The definition, written out for one call of the model: both prompts in rows of one batch, of which the image of
    the chosen row is copied to both after each block.
    """
    transformer = model.model.diffusion_model
    blocks = {
        "sd3": lambda: transformer.joint_blocks,
        "qwen": lambda: transformer.transformer_blocks,
        "z_image": lambda: transformer.layers,
        "wan": lambda: transformer.blocks,
    }.get(name, lambda: [*transformer.double_blocks, *transformer.single_blocks])()
    # In front of the image, in what blocks give: Z-Image pads a text, Wan's blocks give none.
    tokens = {"z_image": 32, "wan": 0}.get(name, own[0][0].shape[1])

    def one_image(index):
        def hook(module, args, given):
            row = 1 if index in chosen else 0
            if isinstance(given, torch.Tensor):
                image = given[:, tokens:]
            else:
                image = given[0] if name.startswith("flux") or name == "chroma" else given[1]
            image[:] = image[row].clone()

        return hook

    hooks = [block.register_forward_hook(one_image(index)) for index, block in enumerate(blocks)]
    both = [[torch.cat([own[0][0], other[0][0]]), own[0][1]]]
    channels = model.get_model_object("latent_format").latent_channels
    empty = comfy.sample.fix_empty_latent_channels(model, torch.zeros(1, channels, 8, 8)).repeat_interleave(2, 0)
    noise = torch.randn(empty[:1].shape, generator=torch.Generator().manual_seed(2)).expand(2, *empty.shape[1:]).clone()
    options = {"seed": 0, "disable_pbar": True}
    with torch.inference_mode():
        made = comfy.sample.sample(model, noise, 2, 1.0, "euler", "normal", both, both, empty, **options)
    for hook in hooks:
        hook.remove()
    return made[:1]


@pytest.mark.parametrize("chosen", [[0], [1], [2], [3], [4], [5], [1, 2], [2, 3], [0, 3, 5]], ids=str)
def test_chosen_blocks_read_the_other_stream_as_the_definition_written_by_hand(
    family, model, inject_in, prompts, chosen
):
    expected = by_hand(model, family, chosen, prompts.own, prompts.other)
    made = sample(inject_in(model, prompts.other, chosen), prompts.own, prompts.empty)
    plain = sample(model, prompts.own, prompts.empty)
    assert (expected - plain).norm() > 1e-3 * plain.norm()
    assert (made - expected).norm() <= 1e-5 * expected.norm()  # float32, in batches of other sizes


@pytest.mark.parametrize("other", ["other", "short"])
@pytest.mark.parametrize("cfg", [1.0, 5.0])
@pytest.mark.parametrize("batch", [1, 3])
def test_no_block_is_the_one_prompt_and_all_are_the_other(model, inject_in, prompts, other, cfg, batch):
    second = getattr(prompts, other)
    plain = sample(model, prompts.own, prompts.empty, cfg, batch)
    assert torch.equal(sample(inject_in(model, second, []), prompts.own, prompts.empty, cfg, batch), plain)
    whole = sample(inject_in(model, second, EVERY), prompts.own, prompts.empty, cfg, batch)
    expected = sample(model, second, prompts.empty, cfg, batch)
    assert (whole - expected).norm() <= 1e-5 * expected.norm()  # float32, in batches of other sizes


def test_in_z_image_prompts_of_all_lengths_are_read_with_the_image_in_one_place(host, inject_in):
    """There the image's positions begin behind the text, which is padded to a multiple of 32 tokens."""
    model, generator = joint_model("z_image"), torch.Generator().manual_seed(5)
    own, longer, empty = ([[torch.randn(1, count, WIDTH, generator=generator), {}]] for count in (20, 40, 20))
    whole, expected = sample(inject_in(model, longer, EVERY), own, empty), sample(model, longer, empty)
    assert (whole - expected).norm() <= 1e-5 * expected.norm()
    assert model.model.diffusion_model.pad_tokens_multiple == 32


@pytest.mark.parametrize("family", ["sd3", "flux"], indirect=True)
def test_the_pooled_embedding_is_given_with_the_prompt_where_it_is_asked_for(model, inject_in, prompts):
    generator = torch.Generator().manual_seed(6)
    second = [[prompts.other[0][0], {"pooled_output": torch.randn(1, 32, generator=generator)}]]
    plain = sample(model, prompts.own, prompts.empty)
    without, same = (
        sample(inject_in(model, other, [1]), prompts.own, prompts.empty) for other in (second, prompts.other)
    )
    given, again = (
        sample(inject_in(model, other, [1], pooled=True), prompts.own, prompts.empty)
        for other in (second, prompts.other)
    )
    assert torch.equal(without, same)
    assert (again - same).norm() <= 1e-5 * same.norm()  # its own pooled embedding changes nothing
    assert (given - same).norm() > 1e-3 * (same - plain).norm()


def test_the_effects_of_the_parts_are_of_the_order_of_the_whole(model, inject_in, prompts):
    plain, parts = sample(model, prompts.own, prompts.empty), ([0, 1], [2, 3], [4, 5])
    effects = [sample(inject_in(model, prompts.other, part), prompts.own, prompts.empty) - plain for part in parts]
    whole = sample(model, prompts.other, prompts.empty) - plain
    assert 0.3 <= (sum(effects).norm() / whole.norm()).item() <= 3


def test_what_another_prompt_costs_and_how_exact_it_is(family, model, inject_in, prompts, record_property):
    """The figures of benchmarks/transformers.py."""

    def seconds(one: ModelPatcher) -> float:
        begun = time.perf_counter()
        sample(one, prompts.own, prompts.empty, side=32)
        return time.perf_counter() - begun

    plain, other = sample(model, prompts.own, prompts.empty), sample(model, prompts.other, prompts.empty)
    none, whole, window = (
        sample(inject_in(model, prompts.other, blocks), prompts.own, prompts.empty) for blocks in ([], EVERY, [2, 3])
    )
    expected = by_hand(model, family, [2, 3], prompts.own, prompts.other)
    first, last = inject_in(model, prompts.other, [0]), inject_in(model, prompts.other, [5])
    seconds(model)
    times = np.array([[seconds(one) for one in (model, first, last)] for _ in range(5)])
    costs = np.median(times[:, 1:] / times[:, :1], axis=0)
    figures = {
        "blocks": len(KINDS[family]),
        "none_difference": relative(none - plain, plain),
        "all_difference": relative(whole - other, other),
        "reference_difference": relative(window - expected, expected),
        "step_cost": round(float(costs[1]), 2),
        "step_cost_first_block": round(float(costs[0]), 2),
    }
    record_property(f"transformers {family}", figures)
    assert figures["none_difference"] == 0
    assert max(figures["all_difference"], figures["reference_difference"]) <= 1e-5  # float32, in other batches
    assert costs[1] <= 3  # twice, and a busy machine


@pytest.mark.parametrize("branch", ["positive", "negative", "both"])
def test_branches_are_told_apart_whether_their_calls_are_joined_or_not(model, inject_in, prompts, branch, monkeypatch):
    injected = inject_in(model, prompts.other, [1, 4], branch=branch)
    joined = sample(injected, prompts.own, prompts.empty, 5.0)
    monkeypatch.setattr(type(model.model), "memory_required", lambda *_, **__: 1e18)  # no two rows fit
    split = sample(injected, prompts.own, prompts.empty, 5.0)
    assert (split - joined).norm() <= 1e-5 * joined.norm()
    assert (joined - sample(model, prompts.own, prompts.empty, 5.0)).norm() > 1e-3 * joined.norm()


def test_a_strength_of_0_5_lies_between_both(model, inject_in, prompts):
    half = inject_in(model, prompts.other, [5], strength=0.5)
    ends = [sample(one, prompts.own, prompts.empty) for one in (model, inject_in(model, prompts.other, [5]), half)]
    plain, whole, between = ends
    assert 0.2 <= ((between - plain).norm() / (whole - plain).norm()).item() <= 0.8


def test_a_hook_that_another_node_puts_in_place_of_a_block_acts_on_both_streams(family, model, inject_in, prompts):
    kind = "single_block" if family in ("flux", "flux2", "chroma") else "double_block"
    number = 1

    def skip(args, extra):
        return args if kind == "single_block" or family != "sd3" else {"img": args["img"], "txt": args["txt"]}

    skipping = model.clone()
    skipping.set_model_patch_replace(skip, "dit", kind, number)
    whole = sample(inject_in(skipping, prompts.other, EVERY), prompts.own, prompts.empty)
    expected = sample(skipping, prompts.other, prompts.empty)
    assert (whole - expected).norm() <= 1e-5 * expected.norm()


@pytest.mark.parametrize("family", [name for name in JOINT if name != "z_image"], indirect=True)  # it skips none
@pytest.mark.parametrize("first", ["the guidance", "the injection"])
def test_skip_layer_guidance_is_of_the_prompt_that_all_blocks_read(model, inject_in, prompts, first):
    def guided(one: ModelPatcher) -> ModelPatcher:
        layers = {"double_layers": "1", "single_layers": "1", "rescaling_scale": 0.0}
        return SkipLayerGuidanceDiT.execute(one, scale=3.0, start_percent=0.0, end_percent=1.0, **layers).result[0]

    plain, expected = (sample(one, prompts.other, prompts.empty, 5.0) for one in (model, guided(model)))
    assert (expected - plain).norm() > 1e-3 * plain.norm()
    if first == "the guidance":
        both = inject_in(guided(model), prompts.other, EVERY)
    else:
        both = guided(inject_in(model, prompts.other, EVERY))
    whole = sample(both, prompts.own, prompts.empty, 5.0)
    assert (whole - expected).norm() <= 1e-5 * expected.norm()


def test_a_lora_before_the_injection_acts_in_both_streams(pack, model, inject_in, prompts):
    block, weights = pack("nodes.host.layers").read_layers(model).modules[2], model.model.state_dict()
    changed, generator = model.clone(), torch.Generator().manual_seed(7)
    matrices = {name: weight for name, weight in weights.items() if name.startswith(block) and weight.ndim == 2}
    changed.add_patches({name: (0.02 * torch.randn(w.shape, generator=generator),) for name, w in matrices.items()})
    plain, expected = (sample(one, prompts.other, prompts.empty) for one in (model, changed))
    whole = sample(inject_in(changed, prompts.other, EVERY), prompts.own, prompts.empty)
    assert (expected - plain).norm() > 1e-3 * plain.norm()
    assert (whole - expected).norm() <= 1e-5 * expected.norm()


def test_part_of_a_prompt_is_not_given(model, inject_in, prompts):
    with pytest.raises(ValueError, match="^part: 'keys'; blocks of this model read a whole prompt"):
        inject_in(model, prompts.other, [1], part="keys")


def test_a_search_does_not_take_a_whole_prompt_for_a_part_of_it(model, engine_of, prompts):
    engine, own = engine_of(model), embedding_of(prompts.own)
    engine._negatives[""] = embedding_of(prompts.empty)
    sampling = Sampling(steps=2, guidance=1.0, sampler="euler", scheduler="normal", width=64, height=64)
    rows = [Row(own, 0, Intervention(LayerSet((1,), 6), own, Part.KEYS))]
    with pytest.raises(ValueError, match="^part: 'keys'; blocks of this model read a whole prompt"):
        engine.latents_at(rows, sampling, [0])


# --- the engine -------------------------------------------------------------------------------------------------------


def embedding_of(prompt: list) -> TextEmbedding:
    tokens = prompt[0][0][0]
    return TextEmbedding("", tokens, (Chunk(0, 0, len(tokens) - 1, len(tokens)),), prompt[0][1]["pooled_output"][0])


def test_predictions_of_many_windows_at_once_are_those_of_each_alone(model, engine_of, prompts):
    engine = engine_of(model)
    engine._negatives[""] = embedding_of(prompts.empty)
    sampling = Sampling(steps=2, guidance=1.0, sampler="euler", scheduler="normal", width=64, height=64)
    own, other, short = map(embedding_of, (prompts.own, prompts.other, prompts.short))
    changes = [None, *(Intervention(LayerSet(window, 6), other) for window in [(0,), (2, 3), tuple(EVERY)])]
    changes.append(Intervention(LayerSet((1, 4), 6), short))
    rows = [Row(one, 3, change) for one in (own, short) for change in changes]
    with torch.inference_mode():
        latents = engine.latents_at(rows, sampling, [1])[:, 0]
        together = engine.predict(rows, latents, sampling, 1)
        alone = torch.cat([engine.predict([row], latents[[n]], sampling, 1) for n, row in enumerate(rows)])
        whole = engine.predict([Row(other, 3)], latents[[3]], sampling, 1)[0]
    assert (together - alone).norm() <= 1e-5 * alone.norm()
    assert (together[3] - whole).norm() <= 1e-5 * whole.norm()
