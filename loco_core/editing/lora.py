"""An edit, or an ablation of neurons, as a LoRA file, which stock loaders (ComfyUI, diffusers, Forge) apply without
this package.

An edit's W A is a product of two thin factors, (W up) and down: a LoRA by itself. An ablation to zero or to a scale
changes some rows of W: unit vectors times these rows.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch.nn import functional

from ..files import replacing
from ..models.layers import CrossAttentionLayer
from ..neurons.detection import PROJECTIONS, Ablation, Weights
from .closed_form import EditOperator

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
    singular values, so that neither leaves float16's range.
    """
    _check_naming(naming)
    if not math.isfinite(strength):
        raise ValueError(f"strength: {strength}; give a number")
    factors, thin = {}, _orthonormal(operator)
    for layer, parts in weights:
        for projection, weight in zip(PROJECTIONS.values(), parts, strict=True):
            factors[_projection_name(layer, projection, layer_count, naming)] = _balanced(strength, weight, thin)
    if pooled is not None:
        wide, weight = pooled
        factors[POOLED_NAMES[naming]] = _balanced(strength, weight, _orthonormal(wide.widened(weight.shape[1])))
    if not any(len(down) for _, down in factors.values()):
        raise ValueError("edit: it changes nothing, so there is no LoRA to save; check strength, layers and target")
    return _tensors(factors, naming)


def ablation_lora_tensors(
    ablation: Ablation, weights: Weights, layers: Sequence[CrossAttentionLayer], naming: str = NAMINGS[0]
) -> dict[str, torch.Tensor]:
    """The LoRA of an ablation to zero or to a scale, of all tokens in both branches, in float16.

    `weights(layer)` gives W_K and W_V of one of the model's `layers`.
    """
    _check_naming(naming)
    if not all(replacement.scales for replacement in ablation.values()):
        raise ValueError("mode: a LoRA has no bias to hold a mean; choose 'zero' or 'scale'")
    factors = {}
    for (layer, part), replacement in ablation.items():
        weight = dict(zip(PROJECTIONS, weights(layer), strict=True))[part].float()
        change = replacement.weight_change(weight)[replacement.neurons]
        root = change.norm(dim=1, keepdim=True).sqrt()
        up = torch.zeros(len(weight), len(change))
        up[replacement.neurons, torch.arange(len(change))] = root[:, 0]
        name = _projection_name(layers[layer], PROJECTIONS[part], len(layers), naming)
        factors[name] = up, change / root.clamp(min=torch.finfo().tiny)
    if not any(down.any() for _, down in factors.values()):
        raise ValueError("count: nothing is changed, so there is no LoRA to save; check count, threshold and scale")
    return _tensors(factors, naming)


def _check_naming(naming: str) -> None:
    if naming not in NAMINGS:
        raise ValueError(f"naming: {naming!r}; give one of {', '.join(NAMINGS)}")


def _projection_name(layer: CrossAttentionLayer, projection: str, layer_count: int, naming: str) -> str:
    return f"{lora_name(layer, layer_count, naming)}{'_' if naming == 'kohya' else '.'}{projection}"


def _tensors(factors: dict[str, tuple[torch.Tensor, torch.Tensor]], naming: str) -> dict[str, torch.Tensor]:
    """The file's tensors of (up, down) by matrix.

    All matrices get the same rank, with zeros where they need less: diffusers loses track of alphas that differ.
    """
    rank = max(len(down) for _, down in factors.values())
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
    up = strength * (weight.detach().cpu().float() @ operator.up)
    squares, right = torch.linalg.eigh(up.double().T @ up.double())
    kept = squares > FLOAT16_ROUNDING**2 * squares[-1:]  # ascending
    kept &= squares > 0
    right, root = right[:, kept].float(), squares[kept].float() ** 0.25
    return (up @ right) / root, root[:, None] * (right.T @ operator.down)


def save_lora(tensors: dict[str, torch.Tensor], path: Path, recipe: dict[str, str]) -> None:
    """Writes the file; `recipe` (how the edit was made) becomes its metadata."""
    with replacing(path) as unfinished:
        save_file(tensors, unfinished, metadata=recipe)
