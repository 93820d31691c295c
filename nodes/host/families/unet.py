"""How ComfyUI's U-Nets are read and patched."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from comfy.model_patcher import ModelPatcher
from comfy.model_sampling import V_PREDICTION

from ....loco_core.models.families.unet import UNET
from ....loco_core.models.layers import ModelLayers, Part, TextLayer
from ..compiled import uncompiled

# The first layer that SDXL's pooled embedding meets, as its first inputs; image sizes follow.
POOLED_LAYER = "label_emb.0.0"

_LAYER_NAME = re.compile(r"(input|middle|output)_blocks?(?:\.(\d+))?\.\d+\.transformer_blocks\.(\d+)\.attn2")


def find_layers(model: ModelPatcher) -> ModelLayers | None:
    """The text layers of a U-Net that is conditioned on a prompt; None for any other model.

    The middle block is addressed as block 0 by the host's patches, wherever its weights are.
    """
    layers: list[TextLayer] = []
    names: list[str] = []
    unet = uncompiled(model.get_model_object("diffusion_model"))
    modules = dict(unet.named_modules())
    for name in modules:
        if found := _LAYER_NAME.fullmatch(name):
            block, number, inner = found[1], int(found[2] or 0), int(found[3])
            layers.append(TextLayer(len(layers), block, 0 if block == "middle" else number, inner))
            names.append(f"diffusion_model.{name}")
    if not layers or model.model.model_config.clip_target() is None:  # Stable Video Diffusion, Zero123: get an image
        return None
    projection = model.get_model_object(f"{names[0]}.{UNET.projections[Part.KEYS]}")
    return ModelLayers(
        layers=tuple(layers),
        modules=tuple(names),
        width=projection.in_features,
        family=UNET,
        levels=tuple(unet.num_res_blocks),
        predicts_v=isinstance(model.get_model_object("model_sampling"), V_PREDICTION),
        pooled_in=f"diffusion_model.{POOLED_LAYER}" if POOLED_LAYER in modules else "",
    )


def add_patch(model: ModelPatcher, patch: Callable[..., Any]) -> None:
    """Has every text layer of `model` call `patch` before W_K and W_V."""
    model.set_model_attn2_patch(patch)
