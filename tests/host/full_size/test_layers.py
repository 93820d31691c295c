"""The cross-attention layers of full-size models, found in what the stock loader loads, each one for itself."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass

import comfy.model_base
import comfy.supported_models
import pytest
import torch
from comfy.model_patcher import ModelPatcher

from host.full_size.measures import relative, sample, unet_output

# In one process: two full-size models do not fit into memory.
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("full size")]

# Of the made-up conditionings: a layer takes any number, and most of a small call's time goes with it.
TOKENS = 8
# Of the batches in which the reference is computed.
ROWS = 12
STACKED = [("input", number, 0) for number in (1, 2, 4, 5, 7, 8)] + [("middle", 0, 0)]
STACKED += [("output", number, 0) for number in range(3, 12)]
SDXL = [("input", 4, 2), ("input", 5, 2), ("input", 7, 10), ("input", 8, 10), ("middle", 0, 10)]
SDXL += [("output", number, 10) for number in range(3)] + [("output", number, 2) for number in range(3, 6)]
# Every layer's block, block number and transformer block, in forward order.
PLACES = {
    "sd15": STACKED,
    "sd21": STACKED,
    "sdxl": [(block, number, inner) for block, number, depth in SDXL for inner in range(depth)],
}
THREE = pytest.mark.parametrize("family", PLACES)


@pytest.mark.parametrize(
    ("family", "config", "prediction", "width"),
    [
        ("sd15", comfy.supported_models.SD15, "EPS", 768),
        ("sd15_inpainting", comfy.supported_models.SD15, "EPS", 768),
        ("sd21", comfy.supported_models.SD20, "V_PREDICTION", 1024),
        ("sdxl", comfy.supported_models.SDXL, "EPS", 2048),
        ("sdxl_refiner", comfy.supported_models.SDXLRefiner, "EPS", 1280),
    ],
)
def test_the_stock_loader_knows_the_family(pack, loaded, config, prediction, width):
    model = loaded.model.model
    assert type(model.model_config) is config
    assert model.model_type.name == prediction
    assert pack("nodes.host.layers").read_layers(loaded.model).width == width


@THREE
def test_the_layers_are_in_forward_order_and_each_has_its_weights(pack, loaded, family, record_property):
    layers = pack("nodes.host.layers").read_layers(loaded.model)
    assert [layer.address for layer in layers] == PLACES[family]
    assert [layer.index for layer in layers] == list(range(len(layers)))
    for (block, number, inner), name in zip(PLACES[family], layers.modules, strict=True):
        where = "middle_block.1" if block == "middle" else f"{block}_blocks.{number}.1"
        assert name == f"diffusion_model.{where}.transformer_blocks.{inner}.attn2"
    assert {f"{name}.to_k.weight" for name in layers.modules} <= loaded.model.model_state_dict().keys()
    record_property(f"layers {family}", len(layers))
    record_property(f"table {family}", {str(layer): name for layer, name in zip(layers, layers.modules, strict=True)})


@dataclass(frozen=True, eq=False)
class Prompts:
    """Two made-up conditionings that differ in their tokens alone."""

    own: list
    other: list


def prompts(width: int) -> Prompts:
    generator = torch.Generator().manual_seed(1)
    own, other = torch.randn(2, 1, TOKENS, width, generator=generator)
    pooled = {"pooled_output": torch.randn(1, 1280, generator=generator)}
    return Prompts([[own, pooled]], [[other, pooled]])


@pytest.fixture
def inject(inject_in, loaded):
    """inject(indices, conditioning) -> the model whose layers at these indices read it."""
    return lambda indices, conditioning: inject_in(loaded.model, conditioning, indices)


def outputs_of_hooked_layers(model: ModelPatcher, attentions: list[torch.nn.Module], given: Prompts) -> torch.Tensor:
    """Without the pack: a U-Net's output where nothing is changed, then for each layer where its own to_k and to_v are
    given the other tokens. Each is a row of a batch.
    """
    outputs = []
    for rows in torch.arange(1 + len(attentions)).split(ROWS):
        with ExitStack() as hooks:
            for row, number in enumerate(rows.tolist()):

                def change(module, inputs, row=row):
                    tokens = inputs[0].clone()
                    tokens[row] = given.other[0][0]
                    return (tokens,)

                for part in (attentions[number - 1].to_k, attentions[number - 1].to_v) if number else ():
                    hooks.enter_context(part.register_forward_pre_hook(change))
            outputs.append(unet_output(model, given.own, len(rows)))
    return torch.cat(outputs)


@pytest.fixture(scope="session")
def references():
    """references(family, ...) -> outputs_of_hooked_layers(...), computed once."""
    known: dict[str, torch.Tensor] = {}

    def run(family: str, *arguments) -> torch.Tensor:
        if family not in known:
            known[family] = outputs_of_hooked_layers(*arguments)
        return known[family]

    return run


@pytest.mark.parametrize(("family", "index"), [(name, index) for name in PLACES for index in range(len(PLACES[name]))])
def test_alone_a_layer_reads_the_other_prompt_and_no_other_does(pack, loaded, inject, references, family, index):
    layers = pack("nodes.host.layers").read_layers(loaded.model)
    attentions = [loaded.model.model.get_submodule(name) for name in layers.modules]
    given = prompts(layers.width)
    read: dict[tuple[int, str], torch.Tensor] = {}
    with ExitStack() as hooks:
        for number, attention in enumerate(attentions):
            for part in ("to_k", "to_v"):

                def note(module, inputs, place=(number, part)):
                    read[place] = inputs[0]

                hooks.enter_context(getattr(attention, part).register_forward_pre_hook(note))
        (output,) = unet_output(inject([index], given.other), given.own)
    own, other = given.own[0][0], given.other[0][0]
    assert len(read) == 2 * len(PLACES[family])
    assert all(torch.equal(tokens, other if number == index else own) for (number, _), tokens in read.items())
    unchanged, *expected = references(family, loaded.model, attentions, given)
    effect = relative(output - unchanged, unchanged)
    assert effect >= 1e-3
    assert relative(output - expected[index], unchanged) <= 1e-3 * effect  # float32 sums in a batch, in another order


PAPERS = {
    "sd15": {"style": (8, 9), "object": (6, 7), "fact": (6, 7)},
    "sd21": {"style": (8, 9, 10), "object": (8, 9, 10), "fact": (7, 8, 9)},
    "sdxl": {"style": (45, 46, 47), "object": (15, 16, 17, 18, 19), "fact": (45, 46, 47, 48, 49)},
}


@THREE
def test_presets_give_the_layers_the_paper_found(execute, loaded, family):
    for attribute, indices in PAPERS[family].items():
        layers, text = execute("LoCo_LayerSelect", model=loaded.model, preset=attribute)
        assert layers.indices == indices
        assert "the paper" in text


# --- relatives of the three families ----------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["sd15_inpainting"])
def test_an_inpainting_model_has_its_familys_layers_and_presets(pack, execute, loaded):
    assert len(pack("nodes.host.layers").read_layers(loaded.model)) == 16
    assert loaded.model.get_model_object("diffusion_model.input_blocks.0.0").in_channels == 9
    assert execute("LoCo_LayerSelect", model=loaded.model, preset="style")[0].indices == (8, 9)


@pytest.mark.parametrize("family", ["sdxl_refiner"])
def test_a_refiner_has_44_layers_and_no_preset(pack, execute, loaded):
    assert len(pack("nodes.host.layers").read_layers(loaded.model)) == 44
    with pytest.raises(
        ValueError,
        match="the paper has none for a model with 44 cross-attention layers and embeddings 1280 wide, only for "
        "SD 1.5, SD 2.1, SDXL; write the layers down, or find them with LoCo Layer Search",
    ):
        execute("LoCo_LayerSelect", model=loaded.model, preset="style")


@pytest.mark.parametrize("family", ["sd15_inpainting", "sdxl_refiner"])
def test_injected_at_all_layers_a_prompt_of_its_text_encoder_is_the_prompt(host, loaded, inject, pack):
    encode = host.nodes.CLIPTextEncode().encode
    own, other = (encode(loaded.clip, prompt)[0] for prompt in ("a red star", "a blue fish"))
    own[0][1]["pooled_output"] = other[0][1]["pooled_output"]  # which the injector leaves to the sampler's prompt
    layers = range(len(pack("nodes.host.layers").read_layers(loaded.model)))
    expected, unchanged = sample(loaded.model, other), sample(loaded.model, own)
    assert relative(expected - unchanged, unchanged) >= 1e-3
    assert torch.equal(sample(inject(layers, other), own), expected)


# --- what is not supported --------------------------------------------------------------------------------------------

SVD = {
    "in_channels": 8,
    "out_channels": 4,
    "model_channels": 32,
    "num_res_blocks": [1, 1],
    "channel_mult": [1, 2],
    "transformer_depth": [1, 1],
    "transformer_depth_output": [1] * 4,
    "transformer_depth_middle": 1,
    "use_spatial_transformer": True,
    "use_linear_in_transformer": True,
    "context_dim": 1024,
    "num_classes": "sequential",
    "adm_in_channels": 768,
    "image_size": 32,
    "legacy": False,
    "extra_ff_mix_layer": True,
    "use_spatial_context": True,
    "merge_strategy": "learned_with_images",
    "merge_factor": 0.0,
    "video_kernel_size": [3, 1, 1],
    "use_temporal_resblock": True,
    "use_temporal_attention": True,
    "disable_temporal_crossattention": False,
}
ZERO123 = {key: value for key, value in SVD.items() if key not in ("num_classes", "adm_in_channels")}
ZERO123 |= {"context_dim": 768, "use_temporal_resblock": False, "use_temporal_attention": False}
UNSUPPORTED = {
    "Stable Video Diffusion": (comfy.supported_models.SVD_img2vid, SVD),
    "Stable Zero123": (comfy.supported_models.Stable_Zero123, ZERO123),
}


@torch.no_grad()  # the host fills a weight of Zero123 in place
@pytest.mark.parametrize("kind", UNSUPPORTED)
def test_a_model_without_such_layers_says_so_and_says_what_to_use(pack, kind):
    family, unet = UNSUPPORTED[kind]
    config = family(unet)
    config.set_inference_dtype(torch.float32, None)
    weights = {"cc_projection.weight": torch.zeros(8, 8), "cc_projection.bias": torch.zeros(8)}
    device = torch.device("cpu")
    model = ModelPatcher(config.get_model(weights, device="meta"), load_device=device, offload_device=device)
    with pytest.raises(ValueError, match=r"model: .*; use Stable Diffusion 1.x, 2.x or SDXL"):
        pack("nodes.host.layers").read_layers(model)
