"""How ComfyUI's models are read and patched, a module for each kind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from comfy.model_patcher import ModelPatcher

from ....loco_core.models.families.cosmos import ANIMA, COSMOS_PREDICT2
from ....loco_core.models.families.unet import UNET
from ....loco_core.models.layers import ModelLayers
from . import cosmos, joint, unet

# Where the host keeps the patches of a run that text layers call before W_K and W_V.
PATCHES = "attn2_patch"
# By family, the module that knows its models, as far as their blocks get the prompt's embedding.
MODULES = {UNET: unet, COSMOS_PREDICT2: cosmos, ANIMA: cosmos}


def find_layers(model: ModelPatcher) -> ModelLayers | None:
    """The text layers of the model; None for one of no family that is known."""
    found = (module.find_layers(model) for module in dict.fromkeys([*MODULES.values(), joint]))
    return next((layers for layers in found if layers is not None), None)


def add_patch(model: ModelPatcher, layers: ModelLayers, patch: Callable[..., Any]) -> None:
    """Has every text layer of `model` call `patch(n, context, value, options)` before W_K and W_V; it returns the three
    as the layer is to have them.
    """
    MODULES[layers.family].add_patch(model, patch)
