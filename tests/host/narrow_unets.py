"""U-Nets of the host's own classes: blocks and text layers as published, narrow, and with random weights."""

from __future__ import annotations

from types import SimpleNamespace

import comfy.supported_models
import torch
from comfy import sd1_clip, sdxl_clip
from comfy.model_patcher import ModelPatcher
from comfy.sd import VAE
from comfy.supported_models_base import BASE, ClipTarget
from comfy.taesd.taesd import TAESD

from host.transformers.narrow import clip_of, patcher
from made_up import randomized

NARROW = {
    "model_channels": 32,
    "num_head_channels": 32,
    "num_heads": -1,
    "image_size": 32,
    "in_channels": 4,
    "out_channels": 4,
    "use_spatial_transformer": True,
    "legacy": False,
}
FEW_LAYERS = {"num_hidden_layers": 3}
SD15 = {
    "num_res_blocks": [2, 2, 2, 2],
    "channel_mult": (1, 2, 4, 4),
    "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0],
    "transformer_depth_middle": 1,
    "transformer_depth_output": [1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0],
}
SDXL = {
    "num_res_blocks": [2, 2, 2],
    "channel_mult": (1, 2, 4),
    "transformer_depth_middle": 10,
    "transformer_depth_output": [0, 0, 0, 2, 2, 2, 10, 10, 10],
    "num_classes": "sequential",
}


def unet(family: type[BASE], shape: dict) -> ModelPatcher:
    made = patcher(family({**family.unet_config, **NARROW, **shape}))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in made.model.eval().diffusion_model.named_parameters():
            if parameter.ndim == 1:
                parameter.fill_(1.0 if name.endswith("weight") else 0.0)
            else:
                parameter.normal_(std=parameter[0].numel() ** -0.5, generator=generator)
    return made


def sdxl_unet() -> ModelPatcher:
    return unet(comfy.supported_models.SDXL, SDXL)


def vae() -> VAE:
    return VAE(sd=randomized(TAESD()).state_dict())


# Text towers are as wide as published, for presets go by their width, and of few layers.


def sd15_model() -> SimpleNamespace:
    target = ClipTarget(sd1_clip.SD1Tokenizer, sd1_clip.SD1ClipModel)
    model = unet(comfy.supported_models.SD15, SD15)
    return SimpleNamespace(model=model, clip=clip_of(target, clip_l=FEW_LAYERS), vae=vae())


def sdxl_model() -> SimpleNamespace:
    target = ClipTarget(sdxl_clip.SDXLTokenizer, sdxl_clip.SDXLClipModel)
    clip = clip_of(target, **{"": FEW_LAYERS}, clip_g=FEW_LAYERS)  # the host does not name the smaller one
    return SimpleNamespace(model=sdxl_unet(), clip=clip, vae=vae())
