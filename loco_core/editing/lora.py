"""An edit as a LoRA: W A is a product of two thin factors, (W up) and down, so it is one by itself.

tensors = edit_lora(edit, engine.layers, engine.key_value_weights)
save_lora(tensors, Path("lora.safetensors"), engine.layers, recipe_metadata(edit, versions))
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch

from ..lora_file import Factors, lora_tensors
from ..models.engine import Weights
from ..models.family import Naming
from ..models.layers import PROJECTIONS, ModelLayers
from .closed_form import EditOperator
from .solve import Edit

# Singular values below this share of the largest drown in the rounding of the others to float16 (5e-4).
FLOAT16_ROUNDING = 1e-4
# The rank that stands for: the edit's own, which is what its concepts need.
AUTO = 0


def of_rank(edit: Edit, rank: int) -> Edit:
    """The edit with the leading parts of its operators alone, where they have more; AUTO: as it is."""
    if rank < 0:
        raise ValueError(f"rank: {rank}; give 1 or more, or {AUTO} for as much as the concepts need")
    if rank == AUTO:
        return edit
    leading = {own: EditOperator(own.up[:, :rank], own.down[:rank]) for own in {*edit.operators.values()}}
    operators = {layer: leading[own] for layer, own in edit.operators.items()}
    pooled = None if edit.pooled is None else EditOperator(edit.pooled.up[:, :rank], edit.pooled.down[:rank])
    return replace(edit, operators=operators, pooled=pooled)


def edit_lora(
    edit: Edit,
    layers: ModelLayers,
    weights: Weights,
    strength: float = 1.0,
    naming: Naming = Naming.KOHYA,
    pooled_weight: torch.Tensor | None = None,
) -> dict[str, torch.Tensor]:
    """The LoRA of strength x W A, in float16; its alpha is its rank.

    weights: a layer's (W_K, W_V); one layer's are in memory at a time. pooled_weight: the first weight that the pooled
    embedding meets, where the edit has an operator for that. Both factors carry the square root of the singular
    values, so that neither leaves float16's range.
    """
    naming = Naming.parse(naming, "naming")
    layers.check_width(edit.width, "edit")
    if edit.pooled is not None and pooled_weight is None:
        raise ValueError("pooled: the edit changes the pooled embedding too; give the weight that this one meets first")
    if not math.isfinite(strength):
        raise ValueError(f"strength: {strength}; give a number")
    thin = {operator: _orthonormal(operator) for operator in set(edit.operators.values())}
    factors: dict[str, Factors] = {}
    for index, names in layers.edited(edit.recipe.layers).items():
        for projection, weight in zip(PROJECTIONS[: len(names)], weights(index), strict=True):
            key = layers.family.lora_key(layers[index], projection, layers, naming)
            factors[key] = _balanced(strength, weight, thin[edit.operators[index]])
    if edit.pooled is not None and pooled_weight is not None:
        wide = edit.pooled.widened(pooled_weight.shape[1])
        factors[layers.family.pooled_lora_key(naming)] = _balanced(strength, pooled_weight, _orthonormal(wide))
    if not any(len(down) for _, down in factors.values()):
        raise ValueError("edit: it changes nothing, so there is no LoRA to save; check strength, layers and target")
    return lora_tensors(factors, naming)


def _orthonormal(operator: EditOperator) -> EditOperator:
    """The same operator, in float32, with orthonormal rows in `down`."""
    right, rest = torch.linalg.qr(operator.down.T)
    return EditOperator((operator.up @ rest.T).float(), right.T.float())


def _balanced(strength: float, weight: torch.Tensor, operator: EditOperator) -> Factors:
    """Factors of strength x W A, of equal size and of no larger rank than it has."""
    up = strength * (weight.detach().cpu().float() @ operator.up)
    squares, right = torch.linalg.eigh(up.double().T @ up.double())
    kept = squares > FLOAT16_ROUNDING**2 * squares[-1:]  # ascending
    kept &= squares > 0
    right, root = right[:, kept].float(), squares[kept].float() ** 0.25
    return (up @ right) / root, root[:, None] * (right.T @ operator.down)
