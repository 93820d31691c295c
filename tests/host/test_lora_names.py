"""The keys of exported LoRAs, as ComfyUI's own loader reads them: on its model of every U-Net family it knows."""

from __future__ import annotations

import logging

import pytest
import torch

pytest.importorskip("diffusers")

import comfy.lora
import comfy.model_detection
import comfy.supported_models
from comfy.model_patcher import ModelPatcher
from comfy_extras.nodes_model_advanced import ModelSamplingDiscrete
from diffusers_unets import CONFIGS, UNEVEN, unet_of

from loco_core.diffusers_host.families.unet import read_layers as read_diffusers_layers
from loco_core.lora_file import lora_tensors
from loco_core.models.family import Naming
from loco_core.models.layers import PROJECTIONS

pytestmark = pytest.mark.slow

# A structure whose levels differ, which no released model has. ComfyUI's own map of keys miscounts its blocks.
UNEVEN_IN_HOST = {
    **comfy.supported_models.SD15.unet_config,
    "image_size": 32,
    "in_channels": 4,
    "out_channels": 4,
    "num_heads": 8,
    "use_spatial_transformer": True,
    "legacy": False,
    "num_res_blocks": [1, 3, 2, 1],
    "channel_mult": [1, 2, 4, 4],
    "transformer_depth": [1, 1, 1, 1, 1, 1, 0],
    "transformer_depth_middle": 1,
    "transformer_depth_output": [1] * 9 + [0] * 2,
}


@pytest.fixture(scope="module", params=CONFIGS)
def family(request, pack):
    """A family's U-Net in ComfyUI, without weights, its text layers, and those that diffusers has of it."""
    unet = unet_of({**CONFIGS, "uneven": UNEVEN}[request.param])
    if request.param == "uneven":
        config = comfy.supported_models.SD15(UNEVEN_IN_HOST)
    else:
        config = comfy.model_detection.model_config_from_diffusers_unet(unet.state_dict())
    model = config.get_model({}, device="meta")
    patcher = ModelPatcher(model, load_device=torch.device("cpu"), offload_device=torch.device("cpu"))
    return model, pack("nodes.host.layers").read_layers(patcher), read_diffusers_layers(unet)


@pytest.mark.parametrize("family", [*CONFIGS, "uneven"], indirect=True)
def test_comfyui_and_diffusers_have_the_same_layers_at_the_same_places(family):
    _, layers, in_diffusers = family
    assert layers.layers == in_diffusers.layers
    assert layers.levels == in_diffusers.levels
    assert layers.width == in_diffusers.width


@pytest.mark.parametrize("naming", Naming)
def test_the_loader_finds_every_layers_weights_under_the_keys(family, naming, caplog):
    model, layers, _ = family
    weights = [(layer, projection) for layer in layers for projection in PROJECTIONS]
    # Each weight has its number for a factor, by which it is known again.
    factors = {
        layers.family.lora_key(layer, projection, layers, naming): (torch.full((1, 1), number), torch.ones(1, 1))
        for number, (layer, projection) in enumerate(weights)
    }
    with caplog.at_level(logging.WARNING):
        loaded = comfy.lora.load_lora(lora_tensors(factors, naming), comfy.lora.model_lora_keys_unet(model, {}))
    assert not caplog.records  # the loader warns of keys that it does not know
    numbers = {key: int(adapter.weights[0]) for key, adapter in loaded.items()}
    names = [f"{layers.projection(layer.index, projection)}.weight" for layer, projection in weights]
    assert numbers == {name: number for number, name in enumerate(names)}


@pytest.mark.parametrize("naming", Naming)
@pytest.mark.parametrize("family", ["SDXL", "SSD-1B", "KOALA 700M"], indirect=True)
def test_the_loader_finds_the_pooled_embeddings_weight_under_its_key(family, naming):
    model, layers, _ = family
    tensors = lora_tensors({layers.family.pooled_lora_key(naming): (torch.ones(1, 1), torch.ones(1, 1))}, naming)
    loaded = comfy.lora.load_lora(tensors, comfy.lora.model_lora_keys_unet(model, {}))
    assert set(loaded) == {"diffusion_model.label_emb.0.0.weight"}


@pytest.mark.parametrize("predicts", ["eps", "v_prediction"])
def test_what_the_model_predicts_is_what_it_samples_with(pack, demo, predicts):
    model = ModelSamplingDiscrete().patch(demo.model, predicts, False)[0]
    assert pack("nodes.host.layers").read_layers(model).predicts_v == (predicts == "v_prediction")
