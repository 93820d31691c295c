"""What kind of model the host has loaded. Read once by a node, then passed on."""

from __future__ import annotations

from comfy.model_patcher import ModelPatcher

from ...loco_core.models.layers import ModelLayers
from .families import unet


def read_layers(model: ModelPatcher) -> ModelLayers:
    """The model's text layers, with their modules' names in the checkpoint."""
    layers = unet.find_layers(model)
    if layers is None:
        raise ValueError(
            "model: it has no cross-attention layers that get the prompt; use Stable Diffusion 1.x, 2.x or SDXL"
        )
    return layers
