"""An edit as a LoRA file, which stock loaders (ComfyUI, diffusers, Forge) apply without this package.

W A is a product of two thin factors, (W up) and down: a LoRA by itself.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch.nn import functional

from .files import replacing
from .layers import CrossAttentionLayer
from .solver import EditOperator

NAMINGS = ("kohya", "diffusers")
"""How keys are named. kohya: as its scripts do, after diffusers' modules for Stable Diffusion 1.x and 2.x, after the
original U-Net's for SDXL; ComfyUI, Forge and diffusers read it. diffusers: its own names alone."""
FLOAT16_ROUNDING = 1e-4
"""Singular values below this share of the largest drown in the rounding of the others to float16 (5e-4)."""
SD_LAYERS = 16
"""Cross-attention layers of Stable Diffusion 1.x and 2.x, whose blocks hold three of diffusers' modules each."""
POOLED_NAMES = {"kohya": "lora_unet_label_emb_0_0", "diffusers": "unet.add_embedding.linear_1"}


def lora_name(layer: CrossAttentionLayer, layer_count: int, naming: str = NAMINGS[0]) -> str:
    """The part of a key that names the attention: "lora_unet_up_blocks_1_attentions_0_transformer_blocks_0_attn2"."""
    inside = f"transformer_blocks.{layer.transformer_index}.attn2"
    if naming == "kohya" and layer_count != SD_LAYERS:
        block = "middle_block.1" if layer.block == "middle" else f"{layer.block}_blocks.{layer.block_number}.1"
    elif layer.block == "middle":
        block = "mid_block.attentions.0"
    else:
        side = "down" if layer.block == "input" else "up"
        number, attention = divmod(layer.block_number - (layer.block == "input"), 3)
        block = f"{side}_blocks.{number}.attentions.{attention}"
    name = f"{block}.{inside}"
    return f"unet.{name}" if naming == "diffusers" else f"lora_unet_{name.replace('.', '_')}"


def lora_tensors(
    operator: EditOperator,
    strength: float,
    weights: Iterable[tuple[CrossAttentionLayer, tuple[torch.Tensor, torch.Tensor]]],
    layer_count: int,
    naming: str = NAMINGS[0],
    pooled: tuple[EditOperator, torch.Tensor] | None = None,
) -> dict[str, torch.Tensor]:
    """The LoRA of strength x W A for layers and their (W_K, W_V), in float16; its alpha is its rank.

    `weights` is gone through once, so that only one layer's need be in memory. `pooled` is the operator of the pooled
    embedding with the weight of the U-Net's first layer that reads it. Both factors carry the square root of the
    singular values, so that neither leaves float16's range. All matrices get the same rank, with zeros where they need
    less: diffusers loses track of alphas that differ.
    """
    if naming not in NAMINGS:
        raise ValueError(f"naming: {naming!r}; give one of {', '.join(NAMINGS)}")
    if not math.isfinite(strength):
        raise ValueError(f"strength: {strength}; give a number")
    divider = "_" if naming == "kohya" else "."
    factors, thin = {}, _orthonormal(operator)
    for layer, parts in weights:
        name = lora_name(layer, layer_count, naming)
        for part, weight in zip(("to_k", "to_v"), parts, strict=True):
            factors[f"{name}{divider}{part}"] = _balanced(strength, weight, thin)
    if pooled is not None:
        wide, weight = pooled
        factors[POOLED_NAMES[naming]] = _balanced(strength, weight, _orthonormal(wide.widened(weight.shape[1])))
    rank = max((len(down) for _, down in factors.values()), default=0)
    if rank == 0:
        raise ValueError("edit: it changes nothing, so there is no LoRA to save; check strength, layers and target")
    ups, downs = ("lora_up", "lora_down") if naming == "kohya" else ("lora_B", "lora_A")
    tensors = {}
    for name, (up, down) in factors.items():
        missing = rank - len(down)
        tensors[f"{name}.{ups}.weight"] = functional.pad(up, (0, missing)).half().contiguous()
        tensors[f"{name}.{downs}.weight"] = functional.pad(down, (0, 0, 0, missing)).half().contiguous()
        if naming == "kohya":
            tensors[f"{name}.alpha"] = torch.tensor(float(rank))
    return tensors


def _orthonormal(operator: EditOperator) -> EditOperator:
    """The same operator, in float32, with orthonormal rows in `down`."""
    right, rest = torch.linalg.qr(operator.down.T)
    return EditOperator((operator.up @ rest.T).float(), right.T.float())


def _balanced(strength: float, weight: torch.Tensor, operator: EditOperator) -> tuple[torch.Tensor, torch.Tensor]:
    """Factors of strength x W A, of equal size and of no larger rank than it has."""
    up = strength * (weight.float() @ operator.up)
    squares, right = torch.linalg.eigh(up.double().T @ up.double())
    kept = squares > FLOAT16_ROUNDING**2 * squares[-1:]  # ascending
    kept &= squares > 0
    right, root = right[:, kept].float(), squares[kept].float() ** 0.25
    return (up @ right) / root, root[:, None] * (right.T @ operator.down)


def save_lora(tensors: dict[str, torch.Tensor], path: Path, recipe: dict[str, str]) -> None:
    """Writes the file; `recipe` (how the edit was made) becomes its metadata."""
    with replacing(path) as unfinished:
        save_file(tensors, unfinished, metadata=recipe)
