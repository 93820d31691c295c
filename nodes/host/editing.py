"""A solved edit on the model patcher: as a patch of weights, or of what the layers get."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrappersMP
from comfy.weight_adapter.base import WeightAdapterBase

from ...loco_core.choices import Choice
from ...loco_core.editing.closed_form import EditOperator
from ...loco_core.editing.solve import Edit
from ...loco_core.models.layers import Address, LayerSet, ModelLayers
from ...loco_core.report import Report
from .branches import ALWAYS, KEY, Run, Schedule, prepared, tell_branches
from .families import PATCHES, add_patch
from .streams import STREAMS, TextEdit
from .text_patch import TextPatch, address
from .turns import Turn
from .weights import effective_weight, patch_weights

EDITED_BEFORE = (
    "WARNING: a node before this one has edited the model: what that removed is not there to be removed again. To "
    "remove several concepts, give them to one node, a line each, or to LoCo Edit Combine"
)


class EditMode(Choice):
    """What is patched: the weights that the prompt's embedding meets, or what they get."""

    WEIGHTS = "weights"
    CONTEXT = "context"


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
class ContextEdit(TextPatch):
    """The layers of `operators` get (I + strength A) c in place of c: W then gives what W (I + strength A) would."""

    operators: dict[Address, EditOperator]
    strength: float
    schedule: Schedule
    turn = Turn.LAST

    @property
    def places(self) -> frozenset[Address]:
        return frozenset(self.operators)

    def change(
        self, context: torch.Tensor, value: torch.Tensor, options: dict[str, Any]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if not self.schedule.covers(options):
            return context, value
        operator, run = self.operators[address(options)], options.get(KEY)
        changed = changed_rows(operator, self.strength, context, run)
        return changed, changed if value is context else changed_rows(operator, self.strength, value, run)


@dataclass(frozen=True, eq=False)
class BlockEdit(TextEdit):
    """Blocks that change the text read each prompt c as (I + strength A) c."""

    operator: EditOperator
    strength: float
    schedule: Schedule
    places: frozenset[Address]

    def covers(self, options: dict[str, Any]) -> bool:
        return self.schedule.covers(options)

    def changed(self, context: torch.Tensor, options: dict[str, Any]) -> torch.Tensor:
        return changed_rows(self.operator, self.strength, context, options.get(KEY))


@dataclass(frozen=True, eq=False)
class PooledEdit:
    """A wrapper of the model's call: the same for the pooled embedding, the first inputs of `y`."""

    operator: EditOperator
    strength: float
    schedule: Schedule

    def __call__(self, executor, x, t, c_concat=None, c_crossattn=None, control=None, transformer_options=None, **rest):
        options, y = transformer_options or {}, rest.get("y")
        if y is not None and self.schedule.covers(options):
            width = self.operator.width
            changed = changed_rows(self.operator, self.strength, y[..., :width], options.get(KEY))
            rest["y"] = torch.cat([changed, y[..., width:]], -1)
        return executor(x, t, c_concat, c_crossattn, control, options, **rest)


def changed_rows(operator: EditOperator, strength: float, rows: torch.Tensor, run: Run | None) -> torch.Tensor:
    """(I + strength A) c for rows c [..., d], in their dtype; computed in float32."""
    up, down = (_factor(factor, rows.device, run) for factor in (operator.up, operator.down))
    own = rows.float()
    return (own + strength * (own @ down.T) @ up.T).to(rows.dtype)


def _factor(factor: torch.Tensor, device: torch.device, run: Run | None) -> torch.Tensor:
    """A factor of an operator in float32 on the device, kept for the rest of the run."""
    return prepared(run, (factor, device), lambda: factor.to(device, torch.float32))


def apply_edit(
    model: ModelPatcher,
    layers: ModelLayers,
    edit: Edit,
    strength: float,
    mode: EditMode = EditMode.WEIGHTS,
    schedule: Schedule = ALWAYS,
) -> ModelPatcher:
    """A clone of `model` that carries the edit; `model` itself stays as it is.

    Only an edit of the context can begin and end with the denoising.
    """
    check_fits(model, layers, edit)
    mode = mode_for(layers, edit, mode)
    check_schedule(mode, schedule)
    edited = model.clone()
    if strength == 0 or not edit.operators:
        return edited
    if mode is EditMode.WEIGHTS:
        _patch_weights(edited, layers, edit, strength)
        return edited
    operators = {layers[index].address: operator for index, operator in edit.operators.items()}
    tell_branches(edited)
    if layers.family.joint:
        (operator,) = {*operators.values()}
        edited.set_model_patch(BlockEdit(operator, strength, schedule, frozenset(operators)), STREAMS)
    else:
        add_patch(edited, layers, ContextEdit(operators, strength, schedule))
    if edit.pooled is not None:
        _add_pooled(edited, PooledEdit(edit.pooled, strength, schedule), layers.pooled_in)
    return edited


def mode_for(layers: ModelLayers, edit: Edit, wanted: EditMode) -> EditMode:
    """How the edit is applied: some blocks that change the text have no weights of their own to patch, and all of them
    only where the prompt's embedding meets a weight as it is.
    """
    weightless = layers.family.joint and not (layers.text_in and edit.recipe.layers == layers.all)
    return EditMode.CONTEXT if weightless else wanted


def earlier_edit(model: ModelPatcher) -> Report:
    """A warning where the model carries an edit of a node before this one."""
    return Report((EDITED_BEFORE,) if _carried(model) else ())


def is_applied(model: ModelPatcher, edit: Edit) -> bool:
    """Whether the model carries this very edit already."""
    own = [operator.up for operator in edit.operators.values()]
    return any(up is other for up in _carried(model) for other in own)


def _carried(model: ModelPatcher) -> list[torch.Tensor]:
    """The first factor of every operator of the edits that the model carries."""
    adapters = [patch[1] for patches in model.patches.values() for patch in patches]
    ups = [adapter.weights[0] for adapter in adapters if isinstance(adapter, EditAdapter)]
    patches = model.model_options["transformer_options"].get("patches", {})
    for patch in patches.get(PATCHES, []):
        change = getattr(patch, "patch", patch)
        ups += [operator.up for operator in change.operators.values()] if isinstance(change, ContextEdit) else []
    return ups + [patch.operator.up for patch in patches.get(STREAMS, []) if isinstance(patch, BlockEdit)]


def check_schedule(mode: EditMode, schedule: Schedule) -> None:
    """An error where an edit of weights is to act for a part of the denoising."""
    if mode is EditMode.WEIGHTS and not schedule.always:
        raise ValueError(
            f"start percent: {schedule.start}, end percent: {schedule.end}; an edit of weights acts from 0 to 1, "
            "choose mode 'context'"
        )


def check_fits(model: ModelPatcher, layers: ModelLayers, edit: Edit) -> None:
    """An error where the edit was made for another kind of model."""
    check_shapes(model, layers, edit.recipe.layers, edit.width, None if edit.pooled is None else edit.pooled.width)


def check_shapes(
    model: ModelPatcher, layers: ModelLayers, chosen: LayerSet, width: int, pooled_width: int | None
) -> None:
    """An error where the model has no such layers, or gets no embeddings as wide."""
    layers.chosen(chosen)
    layers.check_width(width, "edit")
    if pooled_width is None:
        return
    if not layers.pooled_in:
        raise ValueError("pooled: this model gets no pooled embedding; switch it off (it is for SDXL, SD 3 and Flux.1)")
    if layers.family.joint and chosen != layers.all:
        raise ValueError("pooled: all blocks get the pooled embedding together; give all of them, or switch it off")
    inputs = model.get_model_object(layers.pooled_in).in_features
    if pooled_width > inputs:
        raise ValueError(f"edit: its pooled embedding is {pooled_width} wide, the model gets {inputs} inputs")


def pooled_weight(model: ModelPatcher, layers: ModelLayers, edit: Edit) -> torch.Tensor | None:
    """The first weight that the pooled embedding meets, where the edit changes it."""
    return None if edit.pooled is None else effective_weight(model, layers.pooled_in)


def _add_pooled(model: ModelPatcher, change: PooledEdit, layer: str) -> None:
    """The newest acts first, as an edit of weights does; the first of the host's wrappers is the outermost."""
    changes = [change, *model.get_wrappers(WrappersMP.APPLY_MODEL, layer)]
    model.remove_wrappers_with_key(WrappersMP.APPLY_MODEL, layer)
    for each in changes:
        model.add_wrapper_with_key(WrappersMP.APPLY_MODEL, layer, each)


def _patch_weights(model: ModelPatcher, layers: ModelLayers, edit: Edit, strength: float) -> None:
    keys = {
        f"{name}.weight": edit.operators[index]
        for index, names in layers.edited(edit.recipe.layers).items()
        for name in names
    }
    if edit.pooled is not None:
        inputs = model.get_model_object(layers.pooled_in).in_features
        keys[f"{layers.pooled_in}.weight"] = edit.pooled.widened(inputs)
    adapters = {key: EditAdapter({key}, [operator.up, operator.down]) for key, operator in keys.items()}
    patch_weights(model, adapters, "choose mode 'context'", strength)
