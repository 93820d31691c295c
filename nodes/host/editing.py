"""A solved edit on the model patcher: as a weight patch, or in what the layers are given to read."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrappersMP
from comfy.weight_adapter.base import WeightAdapterBase

from ...loco_core.editing.closed_form import EditOperator
from ...loco_core.editing.edit import Edit
from .branches import Schedule, tell_branches
from .engine import context_width, cross_attention_layers, effective_weight, located

MODES = ("weights", "context")
POOLED_LAYER = "diffusion_model.label_emb.0.0"
"""The U-Net's first layer that reads SDXL's pooled embedding, as its first inputs; image sizes follow."""


class EditAdapter(WeightAdapterBase):
    """A weight patch that adds strength x W A when the host patches W, in the order of the patches before it.

    The host may rebuild an adapter as type(adapter)(loaded_keys, weights).
    """

    name = "locoedit"

    def __init__(self, loaded_keys: set[str], weights: list[torch.Tensor]) -> None:
        self.loaded_keys, self.weights = loaded_keys, weights

    def calculate_weight(
        self,
        weight,
        key,
        strength,
        strength_model,
        offset,
        function,
        intermediate_dtype=torch.float32,
        original_weight=None,
    ):
        up, down = self.weights
        weight += function(strength * EditOperator(up, down).weight_change(weight.float())).to(weight.dtype)
        return weight


@dataclass(frozen=True, eq=False)
class ContextEdit:
    """An attn2 patch: the layers at `places` read (I + strength A) c in place of c. W reads it as W (I + strength A)
    would read c.
    """

    operator: EditOperator
    places: frozenset[tuple[str, int, int]]
    strength: float
    schedule: Schedule
    acts_last = True

    def __call__(
        self, n: torch.Tensor, context: torch.Tensor, value: torch.Tensor, extra_options: dict
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        here = (*extra_options["block"], extra_options["block_index"]) in self.places
        if not here or not self.schedule.covers(extra_options, extra_options["sigmas"].max().item()):
            return n, context, value
        changed = changed_rows(self.operator, self.strength, context)
        return n, changed, changed if value is context else changed_rows(self.operator, self.strength, value)


@dataclass(frozen=True, eq=False)
class PooledEdit:
    """A wrapper of the model's call: the same for the pooled embedding, the first inputs of `y`."""

    operator: EditOperator
    strength: float
    schedule: Schedule

    def __call__(self, executor, x, t, c_concat=None, c_crossattn=None, control=None, transformer_options=None, **rest):
        options, y = transformer_options or {}, rest.get("y")
        if y is not None and self.schedule.covers(options, t.max().item()):
            width = self.operator.width
            rest["y"] = torch.cat([changed_rows(self.operator, self.strength, y[..., :width]), y[..., width:]], -1)
        return executor(x, t, c_concat, c_crossattn, control, options, **rest)


def changed_rows(operator: EditOperator, strength: float, rows: torch.Tensor) -> torch.Tensor:
    """(I + strength A) c for rows c [..., d], in their dtype; computed in float32."""
    up, down = (factor.to(rows.device, torch.float32) for factor in (operator.up, operator.down))
    own = rows.float()
    return (own + strength * (own @ down.T) @ up.T).to(rows.dtype)


def apply_edit(
    model: ModelPatcher, edit: Edit, strength: float, mode: str = MODES[0], start: float = 0.0, end: float = 1.0
) -> ModelPatcher:
    """A clone of `model` that carries the edit; `model` itself stays as it is.

    `mode` "weights" patches W_K and W_V; "context" changes what they read, which touches no weight and can begin and
    end with the denoising.
    """
    if mode not in MODES:
        raise ValueError(f"mode: {mode!r}; give one of {', '.join(MODES)}")
    schedule = Schedule(start, end)
    if mode == "weights" and not schedule.always:
        raise ValueError(
            f"start percent: {start}, end percent: {end}; an edit of weights acts from 0 to 1, choose mode 'context'"
        )
    fit(model, edit)
    edited = model.clone()
    if strength == 0 or not len(edit.recipe.layers):
        return edited
    if mode == "weights":
        _patch_weights(edited, edit, strength)
        return edited
    chosen = located(model, edit.recipe.layers)
    places = frozenset((layer.block, layer.block_number, layer.transformer_index) for layer in chosen)
    tell_branches(edited)
    edited.set_model_attn2_patch(ContextEdit(edit.operator, places, strength, schedule))
    if edit.pooled is not None:
        _add_pooled(edited, PooledEdit(edit.pooled, strength, schedule))
    return edited


def fit(model: ModelPatcher, edit: Edit) -> None:
    """An error where the edit was made for another kind of model."""
    located(model, edit.recipe.layers)
    width = context_width(model)
    if width != edit.operator.width:
        raise ValueError(
            f"edit: solved with text embeddings {edit.operator.width} wide, the model reads {width}; "
            "connect the CLIP that belongs to this model"
        )
    if edit.pooled is None:
        return
    inputs = pooled_layer(model).in_features
    if edit.pooled.width > inputs:
        raise ValueError(f"edit: its pooled embedding is {edit.pooled.width} wide, the model reads {inputs} inputs")


def pooled_layer(model: ModelPatcher) -> torch.nn.Module:
    """The U-Net's first layer that reads the pooled embedding."""
    try:
        return model.get_model_object(POOLED_LAYER)
    except (AttributeError, IndexError):
        raise ValueError("pooled: this model reads no pooled embedding; switch it off (it is for SDXL)") from None


def _add_pooled(model: ModelPatcher, change: PooledEdit) -> None:
    """The newest acts first, as an edit of weights does; the first of the host's wrappers is the outermost."""
    changes = [change, *model.get_wrappers(WrappersMP.APPLY_MODEL, POOLED_LAYER)]
    model.remove_wrappers_with_key(WrappersMP.APPLY_MODEL, POOLED_LAYER)
    for each in changes:
        model.add_wrapper_with_key(WrappersMP.APPLY_MODEL, POOLED_LAYER, each)


def _patch_weights(model: ModelPatcher, edit: Edit, strength: float) -> None:
    names = cross_attention_layers(model)
    chosen = located(model, edit.recipe.layers)
    keys = {f"{names[layer]}.{part}.weight": edit.operator for layer in chosen for part in ("to_k", "to_v")}
    if edit.pooled is not None:
        keys[f"{POOLED_LAYER}.weight"] = edit.pooled.widened(pooled_layer(model).in_features)
    adapters = {key: EditAdapter({key}, [operator.up, operator.down]) for key, operator in keys.items()}
    refused = keys.keys() - set(model.add_patches(adapters, strength_patch=strength))
    if refused:
        raise ValueError(f"mode: 'weights' cannot patch this model's {min(refused)!r}; choose mode 'context'")


def key_value_weights(model: ModelPatcher, edit: Edit):
    """Each edited layer with its effective (W_K, W_V), one at a time."""
    names = cross_attention_layers(model)
    for layer in located(model, edit.recipe.layers):
        keys, values = (effective_weight(model, f"{names[layer]}.{part}.weight") for part in ("to_k", "to_v"))
        yield layer, (keys, values)
