"""What kind of model the host has loaded. Read once by a node, then passed on."""

from __future__ import annotations

from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
from comfy.model_patcher import ModelPatcher

from ...loco_core.models.layers import ModelLayers
from . import families
from .compiled import uncompiled


def image_sides(layers: ModelLayers, width: int, height: int) -> tuple[int, int]:
    """Width and height of images in pixels; where one is 0, what the model was made for."""
    own = layers.family.image_size(layers)
    return width or own, height or own


def read_layers(model: ModelPatcher) -> ModelLayers:
    """The model's text layers, with their modules' names in the checkpoint."""
    layers = families.find_layers(model)
    if layers is None:
        denoiser = uncompiled(model.get_model_object("diffusion_model"))
        if isinstance(denoiser, UNetModel):
            why = "it has no cross-attention layers that get the prompt"
        else:
            why = f"how a {type(denoiser).__name__} reads the prompt is not known to this pack"
        raise ValueError(
            f"model: {why}; use Stable Diffusion 1.x, 2.x or SDXL, Anima, Cosmos-Predict2, SD 3.x, Flux, Chroma, "
            "Qwen-Image, Z-Image or Wan"
        )
    if getattr(model.model, "image_to_video", False):
        raise ValueError("model: it makes videos of images; use one that makes images, or videos, of text")
    return layers
