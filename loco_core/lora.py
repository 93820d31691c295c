"""An edit as a LoRA file, which stock loaders (ComfyUI, diffusers, Forge) apply without this package.

W A is a product of two thin factors, (W up) and down: a LoRA by itself. Keys are named as kohya's scripts name them:
after diffusers' modules for Stable Diffusion 1.x and 2.x, after the original U-Net's for SDXL.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch.nn import functional

from .edit import EditOperator
from .files import replacing
from .layers import CrossAttentionLayer

FLOAT16_ROUNDING = 1e-4
"""Singular values below this share of the largest drown in the rounding of the others to float16 (5e-4)."""
SD_LAYERS = 16
"""Cross-attention layers of Stable Diffusion 1.x and 2.x, whose blocks hold three of diffusers' modules each."""


def lora_name(layer: CrossAttentionLayer, layer_count: int) -> str:
    """The part of a key that names the attention: "lora_unet_up_blocks_1_attentions_0_transformer_blocks_0_attn2"."""
    inside = f"transformer_blocks_{layer.transformer_index}_attn2"
    if layer_count != SD_LAYERS:
        block = "middle_block_1" if layer.block == "middle" else f"{layer.block}_blocks_{layer.block_number}_1"
        return f"lora_unet_{block}_{inside}"
    if layer.block == "middle":
        return f"lora_unet_mid_block_attentions_0_{inside}"
    side = "down" if layer.block == "input" else "up"
    block, attention = divmod(layer.block_number - (layer.block == "input"), 3)
    return f"lora_unet_{side}_blocks_{block}_attentions_{attention}_{inside}"


def lora_tensors(
    operator: EditOperator,
    strength: float,
    weights: Mapping[CrossAttentionLayer, tuple[torch.Tensor, torch.Tensor]],
    layer_count: int,
) -> dict[str, torch.Tensor]:
    """The LoRA of strength x W A for the given layers' (W_K, W_V), in float16; its alpha is its rank.

    Both factors carry the square root of the singular values, so that neither leaves float16's range. All matrices get
    the same rank, with zeros where they need less: diffusers loses track of alphas that differ.
    """
    if not math.isfinite(strength):
        raise ValueError(f"strength: {strength}; give a number")
    factors = {
        f"{lora_name(layer, layer_count)}_{part}": _balanced(strength * (weight.double() @ operator.up), operator.down)
        for layer, parts in weights.items()
        for part, weight in zip(("to_k", "to_v"), parts, strict=True)
    }
    rank = max((len(down) for _, down in factors.values()), default=0)
    if rank == 0:
        raise ValueError("edit: it changes nothing, so there is no LoRA to save; check strength, layers and target")
    tensors = {}
    for name, (up, down) in factors.items():
        missing = rank - len(down)
        tensors[f"{name}.lora_up.weight"] = functional.pad(up, (0, missing)).half().contiguous()
        tensors[f"{name}.lora_down.weight"] = functional.pad(down, (0, 0, 0, missing)).half().contiguous()
        tensors[f"{name}.alpha"] = torch.tensor(float(rank))
    return tensors


def _balanced(up: torch.Tensor, down: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Factors of the same product up [d_out, r] @ down [r, d], of equal size and no larger rank than it has."""
    left, left_rest = torch.linalg.qr(up)
    right, right_rest = torch.linalg.qr(down.T)
    inner_left, singular, inner_right = torch.linalg.svd(left_rest @ right_rest.T, full_matrices=False)
    kept = singular > FLOAT16_ROUNDING * singular[0]
    root = singular[kept].sqrt()
    return (left @ inner_left[:, kept]) * root, root[:, None] * (inner_right[kept] @ right.T)


def save_lora(tensors: dict[str, torch.Tensor], path: Path, recipe: dict[str, str]) -> None:
    """Writes the file; `recipe` (how the edit was made) becomes its metadata."""
    with replacing(path) as unfinished:
        save_file(tensors, unfinished, metadata=recipe)
