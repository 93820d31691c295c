"""The keys of exported LoRAs against diffusers' own modules and loader, on U-Nets of every family."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("diffusers")

import diffusers
from diffusers_unets import CONFIGS, UNEVEN, unet_of

from loco_core.diffusers_host.demo_model import demo_pipeline
from loco_core.diffusers_host.engine import DiffusersEngine
from loco_core.diffusers_host.families.unet import read_layers
from loco_core.lora_file import lora_tensors
from loco_core.models.family import Naming
from loco_core.models.layers import PROJECTIONS, ModelLayers

FAMILIES = {**CONFIGS, "uneven": UNEVEN}
# Families whose keys by kohya's naming are of the original U-Net's modules.
ORIGINAL = {"SDXL", "SDXL Refiner", "SSD-1B", "Segmind Vega", "KOALA 700M", "KOALA 1B"}


@pytest.fixture(scope="module", params=FAMILIES)
def unet(request) -> diffusers.UNet2DConditionModel:
    return unet_of(FAMILIES[request.param])


@pytest.fixture
def layers(unet) -> ModelLayers:
    return read_layers(unet)


def marked(layers: ModelLayers, naming: Naming) -> dict[str, torch.Tensor]:
    """A LoRA of every weight, whose first factor is the weight's number."""
    return lora_tensors(
        {
            layers.family.lora_key(layer, projection, layers, naming): (
                torch.full((1, 1), 2 * layer.index + number),
                torch.ones(1, 1),
            )
            for layer in layers
            for number, projection in enumerate(PROJECTIONS)
        },
        naming,
    )


@pytest.mark.parametrize("naming", Naming)
def test_diffusers_own_loader_finds_every_layers_weights_under_the_keys(unet, layers, naming):
    state, _ = diffusers.StableDiffusionPipeline.lora_state_dict(marked(layers, naming), unet_config=unet.config)
    state = diffusers.utils.convert_unet_state_dict_to_peft(state)
    numbers = {key.removeprefix("unet."): int(value) for key, value in state.items() if ".lora_B." in key}
    assert numbers == {
        f"{layers.projection(layer.index, projection)}.lora_B.weight": 2 * layer.index + number
        for layer in layers
        for number, projection in enumerate(PROJECTIONS)
    }


@pytest.mark.parametrize("naming", Naming)
def test_keys_name_diffusers_modules_but_kohyas_the_original_ones_from_sdxl_on(request, layers, naming):
    """As Forge's map of keys has them: lora_unet_ and the module's name, diffusers' or the original one."""
    name = request.node.callspec.params["unet"]
    for layer in layers:
        for projection in PROJECTIONS:
            key = layers.family.lora_key(layer, projection, layers, naming)
            module = layers.projection(layer.index, projection)
            if naming is Naming.DIFFUSERS:
                assert key == f"unet.{module.replace('attn2.to', 'attn2.processor.to')}_lora"
            elif name in ORIGINAL:
                block = "middle_block" if layer.block == "middle" else f"{layer.block}_blocks_{layer.block_number}"
                inner = module[module.index("transformer_blocks") :].replace(".", "_")
                assert key == f"lora_unet_{block}_1_{inner}"
            else:
                assert key == f"lora_unet_{module.replace('.', '_')}"


@pytest.mark.parametrize("predicts", ["epsilon", "v_prediction"])
def test_what_the_model_predicts_is_what_its_scheduler_says(predicts):
    pipeline = demo_pipeline()
    pipeline.scheduler = diffusers.DDIMScheduler.from_config(pipeline.scheduler.config, prediction_type=predicts)
    assert DiffusersEngine(pipeline).layers.predicts_v == (predicts == "v_prediction")
