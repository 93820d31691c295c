"""The diffusers engine on other families: small random models built as SD 2.x and SDXL are, and exported LoRAs."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("diffusers")

import diffusers
from transformers import CLIPTextModel, CLIPTextModelWithProjection

from loco_core.diffusers_host.demo_model import NOISE, clip_tokenizer
from loco_core.diffusers_host.engine import DiffusersEngine
from loco_core.diffusers_host.families.unet import read_layers
from loco_core.diffusers_host.pipelines import load_pipeline
from loco_core.editing.closed_form import EditOperator
from loco_core.editing.lora import edit_lora
from loco_core.editing.solve import solve_edit
from loco_core.lora_file import save_lora
from loco_core.models.engine import Intervention, Row, Sampling
from loco_core.models.family import Naming
from loco_core.models.layers import PROJECTIONS, LayerSet, Part
from made_up import edit_of, recipe, shared_operator
from narrow_pipelines import clip_encoder, narrow_vae

pytestmark = pytest.mark.slow

STAR, FISH = "a red star", "a blue fish in the style of woodcut"


@pytest.fixture(scope="module")
def sd2_folder(tmp_path_factory):
    """SD 2.x: linear projections, its own head width, v-prediction."""
    torch.manual_seed(1)
    unet = diffusers.UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(32, 32, 64, 64),
        attention_head_dim=(1, 1, 2, 2),
        cross_attention_dim=32,
        use_linear_projection=True,
    )
    folder = tmp_path_factory.mktemp("sd2")
    diffusers.StableDiffusionPipeline(
        narrow_vae(latent_channels=4),
        clip_encoder(CLIPTextModel, 32),
        clip_tokenizer(),
        unet,
        diffusers.DDIMScheduler(**NOISE),
        None,
        None,
        requires_safety_checker=False,
    ).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def sdxl_folder(tmp_path_factory):
    """SDXL: two text encoders, pooled embedding and sizes, up to ten layers in a block."""
    torch.manual_seed(2)
    unet = diffusers.UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(32, 32, 32),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 2, 10),
        attention_head_dim=(1, 1, 1),
        cross_attention_dim=48,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + 32,
    )
    folder = tmp_path_factory.mktemp("sdxl")
    diffusers.StableDiffusionXLPipeline(
        narrow_vae(latent_channels=4),
        clip_encoder(CLIPTextModel, 16),
        clip_encoder(CLIPTextModelWithProjection, 32),
        clip_tokenizer(),
        clip_tokenizer(),
        unet,
        diffusers.EulerDiscreteScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear"),
    ).save_pretrained(folder)
    return folder


@pytest.mark.parametrize(("family", "count"), [("sd2", 16), ("sdxl", 70)])
def test_a_local_folder_is_loaded_and_its_layers_are_driven(family, count, request):
    engine = DiffusersEngine(load_pipeline(request.getfixturevalue(f"{family}_folder")))
    assert len(engine.layers) == count
    star, fish = engine.encode([STAR, FISH])
    assert (star.pooled is None) == (family == "sd2")
    sampling = Sampling(2, 5.0, "ddim", "leading", 64, 64)
    middle = next(layer.index for layer in engine.layers if layer.block == "middle")
    rows = [Row(star, 0)] + [
        Row(star, 0, Intervention(LayerSet((index,), count), fish)) for index in (0, middle, count - 1)
    ]
    images = engine.generate(rows, sampling)
    assert all((image - images[0]).abs().max() > 1e-5 for image in images[1:])  # rounding of the batch: below 1e-6


def test_sdxls_layers_stand_where_comfyui_has_them(sdxl_folder):
    layers = DiffusersEngine(load_pipeline(sdxl_folder)).layers
    blocks = [("input", 4, 2), ("input", 5, 2), ("input", 7, 10), ("input", 8, 10), ("middle", 0, 10)]
    blocks += [("output", number, 10) for number in (0, 1, 2)] + [("output", number, 2) for number in (3, 4, 5)]
    expected = [(block, number, inner) for block, number, depth in blocks for inner in range(depth)]
    assert [(layer.block, layer.block_number, layer.inner) for layer in layers] == expected


def test_sdxl_makes_the_image_of_diffusers_own_pipeline(sdxl_folder):
    pipeline = load_pipeline(sdxl_folder)
    pipeline.set_progress_bar_config(disable=True)
    engine = DiffusersEngine(pipeline)
    (star,) = engine.encode([STAR])
    ours = engine.generate([Row(star, 3)], Sampling(3, 5.0, "euler", "linspace", 64, 96, "grey"))
    theirs = pipeline(
        STAR,
        negative_prompt="grey",
        width=64,
        height=96,
        num_inference_steps=3,
        guidance_scale=5.0,
        latents=torch.randn(1, 4, 12, 8, generator=torch.Generator().manual_seed(3)),
        output_type="pt",
    ).images.movedim(1, -1)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-3)  # float32 sums in another batch shape


@pytest.mark.parametrize("naming", Naming)
@pytest.mark.parametrize(("family", "chosen"), [("sd2", (0, 6, 15)), ("sdxl", (0, 30, 45, 69))])
def test_diffusers_own_loader_makes_the_same_change_of_an_exported_lora(family, chosen, naming, request, tmp_path):
    pytest.importorskip("peft")
    engine = DiffusersEngine(load_pipeline(request.getfixturevalue(f"{family}_folder")))
    count, layers = len(engine.layers), LayerSet(chosen, len(engine.layers))
    with_pooled = family == "sdxl"
    edit = solve_edit(engine.encode, recipe(layers=layers, pooled=with_pooled))
    before = [engine.key_value_weights(layer) for layer in range(count)]
    label = engine.pooled_weight().clone() if with_pooled else None
    tensors = edit_lora(edit, engine.layers, before.__getitem__, naming=naming, pooled_weight=label)
    save_lora(tensors, tmp_path / "edit.safetensors", engine.layers, {"loco_layers": str(layers)})
    engine._pipeline.load_lora_weights(tmp_path, weight_name="edit.safetensors")
    engine._pipeline.fuse_lora()
    engine._pipeline.unload_lora_weights()
    operator = shared_operator(edit)
    changes = [
        (old, new, operator.weight_change(old) if layer in layers else torch.zeros_like(old))
        for layer in range(count)
        for old, new in zip(before[layer], engine.key_value_weights(layer), strict=True)
    ]
    if with_pooled:
        changes.append((label, engine.pooled_weight(), edit.pooled.widened(label.shape[1]).weight_change(label)))
    for old, new, expected in changes:
        assert torch.linalg.norm(new - old - expected) <= 2e-3 * torch.linalg.norm(expected) + 1e-6  # float16


@pytest.mark.parametrize("naming", Naming)
def test_diffusers_own_loader_changes_the_same_matrices_of_a_full_size_sd15(naming):
    pytest.importorskip("peft")
    with torch.device("meta"):
        unet = diffusers.UNet2DConditionModel(cross_attention_dim=768)
    unet = unet.to_empty(device="cpu").requires_grad_(False)
    layers, chosen = read_layers(unet), LayerSet((8, 9), 16)
    generator = torch.Generator().manual_seed(0)

    def module(layer: int, projection: Part) -> torch.nn.Module:
        return unet.get_submodule(layers.projection(layer, projection))

    weights = [
        tuple(
            module(layer, projection).weight.normal_(std=0.03, generator=generator).clone()
            for projection in PROJECTIONS
        )
        for layer in layers.all
    ]
    up, down = (torch.randn(shape, generator=generator, dtype=torch.float64) for shape in ((768, 4), (4, 768)))
    operator = EditOperator(up, down / 768)
    tensors = edit_lora(edit_of(operator, chosen), layers, weights.__getitem__, naming=naming)
    state, alphas = diffusers.StableDiffusionPipeline.lora_state_dict(tensors, unet_config=unet.config)
    diffusers.StableDiffusionPipeline.load_lora_into_unet(state, alphas, unet)
    changed = {name for name, module in unet.named_modules() if hasattr(module, "lora_A")}
    assert changed == {layers.projection(layer, projection) for layer in chosen for projection in PROJECTIONS}
    unet.fuse_lora()
    for layer, before in enumerate(weights):
        for old, projection in zip(before, PROJECTIONS, strict=True):
            fused = module(layer, projection)
            new = fused.base_layer.weight if layer in chosen else fused.weight
            expected = operator.weight_change(old) if layer in chosen else torch.zeros_like(old)
            assert torch.linalg.norm(new - old - expected) <= 2e-3 * torch.linalg.norm(expected)  # float16
