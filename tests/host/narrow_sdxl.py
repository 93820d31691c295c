"""SDXL of the host's own classes: its blocks and its text layers, narrow and with random weights."""

from __future__ import annotations

from types import SimpleNamespace

import comfy.supported_models
import torch
from comfy import sdxl_clip
from comfy.model_patcher import ModelPatcher
from comfy.sd import VAE
from comfy.supported_models_base import ClipTarget
from comfy.taesd.taesd import TAESD

from host.transformers.narrow import clip_of, patcher
from made_up import randomized

UNET_CONFIG = {
    **comfy.supported_models.SDXL.unet_config,
    "model_channels": 32,
    "num_head_channels": 32,
    "num_heads": -1,
    "image_size": 32,
    "in_channels": 4,
    "out_channels": 4,
    "num_res_blocks": [2, 2, 2],
    "channel_mult": (1, 2, 4),
    "transformer_depth_middle": 10,
    "transformer_depth_output": [0, 0, 0, 2, 2, 2, 10, 10, 10],
    "use_spatial_transformer": True,
    "num_classes": "sequential",
    "legacy": False,
}


def sdxl_unet() -> ModelPatcher:
    unet = patcher(comfy.supported_models.SDXL(UNET_CONFIG))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in unet.model.eval().diffusion_model.named_parameters():
            if parameter.ndim == 1:
                parameter.fill_(1.0 if name.endswith("weight") else 0.0)
            else:
                parameter.normal_(std=parameter[0].numel() ** -0.5, generator=generator)
    return unet


def sdxl_model() -> SimpleNamespace:
    """Its text towers are of full width and of few layers; the host names the larger one alone."""
    towers = {"": {"num_hidden_layers": 3}, "clip_g": {"num_hidden_layers": 3}}
    clip = clip_of(ClipTarget(sdxl_clip.SDXLTokenizer, sdxl_clip.SDXLClipModel), **towers)
    return SimpleNamespace(model=sdxl_unet(), clip=clip, vae=VAE(sd=randomized(TAESD()).state_dict()))
