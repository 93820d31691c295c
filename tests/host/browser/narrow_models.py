"""SD 1.5 and SDXL with all their blocks and context widths, a tenth as wide, with three layers in each text tower.

ComfyUI knows checkpoints by their shapes. Put into its custom_nodes folder, this file makes its loaders know these.
"""

from __future__ import annotations

import comfy.supported_models
from comfy.sd1_clip import SD1ClipModel, SD1Tokenizer
from comfy.sdxl_clip import SDXLClipModel, SDXLTokenizer
from comfy.supported_models_base import ClipTarget

CHANNELS = 32
TOWERS = {f"{tower}_model_config": {"num_hidden_layers": 3} for tower in ("clip_l", "clip_g")}


class NarrowSD15Clip(SD1ClipModel):
    def __init__(self, device="cpu", dtype=None, model_options=None):
        super().__init__(device=device, dtype=dtype, model_options={**(model_options or {}), **TOWERS})


class NarrowSDXLClip(SDXLClipModel):
    def __init__(self, device="cpu", dtype=None, model_options=None):
        super().__init__(device=device, dtype=dtype, model_options={**(model_options or {}), **TOWERS})


class NarrowSD15(comfy.supported_models.SD15):
    unet_config = {**comfy.supported_models.SD15.unet_config, "model_channels": CHANNELS}

    def clip_target(self, state_dict=None):
        return ClipTarget(SD1Tokenizer, NarrowSD15Clip)


class NarrowSDXL(comfy.supported_models.SDXL):
    unet_config = {**comfy.supported_models.SDXL.unet_config, "model_channels": CHANNELS}
    unet_extra_config = {"num_heads": -1, "num_head_channels": CHANNELS}

    def clip_target(self, state_dict=None):
        return ClipTarget(SDXLTokenizer, NarrowSDXLClip)


comfy.supported_models.models += [NarrowSD15, NarrowSDXL]
NODE_CLASS_MAPPINGS = {}
