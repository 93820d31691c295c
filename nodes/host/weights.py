"""Weights as the model uses them."""

from __future__ import annotations

import comfy.lora
import torch
from comfy.model_patcher import ModelPatcher


def effective_weight(model: ModelPatcher, key: str) -> torch.Tensor:
    """The weight with all patches on it, in float32 on the CPU. The model itself stays as it is."""
    known = model.get_key_patches(key)
    if key not in known:
        raise ValueError(f"model: its weight {key!r} cannot be read; load the checkpoint in another format")
    (weight, convert), *patches = known[key]
    weight = convert(weight.to("cpu", torch.float32, copy=True), inplace=True)
    return comfy.lora.calculate_weight(patches, weight, key)
