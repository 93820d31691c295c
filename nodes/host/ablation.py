"""Neurons ablated on the model patcher: at run time, after the projection that they are outputs of.

The host's slot for replacing attention belongs to other packs. So the projection itself is hooked: whatever is done
with keys and values afterwards, by the host or by another pack, is done with what is left of them. The hooks are put in
around every evaluation of the conditionings, on the model that runs then and on its copies on other devices: a clone of
a patcher may stand on another model than the one the node got.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrapperExecutor, WrappersMP
from comfy.weight_adapter.base import WeightAdapterBase

from ...loco_core.choices import Choice
from ...loco_core.models.layers import INDICES, ModelLayers, entries
from ...loco_core.neurons.ablation import Ablation, Replacement
from ...loco_core.neurons.detection import Neurons
from .branches import Scope, tell_branches
from .families import add_patch
from .weights import patch_weights

ALL_TOKENS = "all"
# Under which the wrappers that put the hooks in are registered.
KEY = "loco_ablation"


class AblationMode(Choice):
    """Where an ablation acts: on outputs while the model runs, or on weights."""

    RUN_TIME = "run time"
    WEIGHTS = "weights"


@dataclass(frozen=True, eq=False)
class Positions:
    """Some of the token positions of a chunk, as booleans."""

    chosen: torch.Tensor

    def covers(self, length: int) -> torch.Tensor:
        """Which of so many tokens, in chunks one after the other, are meant: booleans [length]."""
        if length % len(self.chosen):
            raise ValueError(
                f"token positions: the layers get {length} tokens, no multiple of {len(self.chosen)}; the text encoder "
                "takes another number at once, or another node changes it. Give 'all'"
            )
        return self.chosen[torch.arange(length) % len(self.chosen)]


def parse_positions(text: str, chunk_length: int) -> Positions | None:
    """Which token positions of a chunk a person wrote down; None for "all"."""
    if text.strip().lower() == ALL_TOKENS:
        return None
    chosen = torch.zeros(chunk_length, dtype=torch.bool)
    for entry in entries(text):
        match = INDICES.fullmatch(entry)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, -1)
        if not first <= last < chunk_length:
            example = f"'1-{chunk_length - 1}'"
            raise ValueError(
                f"token positions: {entry!r}; give 'all', or positions from 0 to {chunk_length - 1} like {example}"
            )
        chosen[first : last + 1] = True
    if not chosen.any():
        raise ValueError(f"token positions: empty; give 'all', or positions like '1-{chunk_length - 1}'")
    return Positions(chosen)


# The host's options for the text layer at work in a thread; the host runs each device in one of its own.
_present = threading.local()


def note_options(n: torch.Tensor, context: torch.Tensor, value: torch.Tensor, extra_options: dict):
    """A patch of text layers, which the host calls just before their projections run: notes their options."""
    _present.options = extra_options
    return n, context, value


@dataclass(frozen=True, eq=False)
class ProjectionHook:
    """A forward hook of a projection: replaces some of its outputs, in the rows of a scope and at some positions."""

    replacement: Replacement
    scope: Scope
    positions: Positions | None

    def __call__(self, module: torch.nn.Module, inputs: tuple, outputs: torch.Tensor) -> torch.Tensor:
        """`outputs` are [rows, ..., T, d_out]."""
        if self.scope.everywhere and self.positions is None:
            return self.replacement(outputs)
        where = torch.zeros(outputs.shape[:-1], dtype=torch.bool)
        if self.scope.everywhere:
            where[:] = True
        else:
            where[list(self.scope.rows(_present.options, len(outputs)))] = True
        if self.positions is not None:
            where &= self.positions.covers(outputs.shape[-2])
        return self.replacement(outputs, where) if where.any() else outputs


@dataclass(frozen=True, eq=False)
class HookedProjections:
    """A wrapper of the evaluation of conditionings during which hooks are in the model, by the names of modules."""

    hooks: Mapping[str, ProjectionHook]

    def __call__(self, executor: WrapperExecutor, model, conditionings: list, x, timestep, model_options: dict):
        copies = model_options.get("multigpu_clones", {}).values()
        models = dict.fromkeys([model, *(patcher.model for patcher in copies)])
        with ExitStack() as hooked:
            hooked.callback(_present.__dict__.clear)  # the options lead to the model
            for each in models:
                for name, hook in self.hooks.items():
                    hooked.enter_context(each.get_submodule(name).register_forward_hook(hook))
            return executor(model, conditionings, x, timestep, model_options)


class NeuronAdapter(WeightAdapterBase):
    """A weight patch that scales rows of W when the host patches it, in the order of the patches before it.

    The host may rebuild an adapter as type(adapter)(loaded_keys, weights).
    """

    name = "loconeurons"

    def __init__(self, loaded_keys: set[str], weights: list[Replacement]) -> None:
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
        (replacement,) = self.weights
        weight += function(strength * replacement.weight_change(weight))
        return weight


def check_fits(model: ModelPatcher, layers: ModelLayers, neurons: Neurons) -> None:
    """An error where the neurons were detected in another kind of model."""
    layers.chosen(neurons.layers)
    layers.check_width(neurons.width, "neurons")
    for (layer, projection), score in neurons.scores.items():
        outputs = model.get_model_object(layers.projection(layer, projection)).out_features
        if len(score.z) != outputs:
            raise ValueError(
                f"neurons: layer {layer} had {len(score.z)} {projection} where they were detected, and has {outputs} "
                "here"
            )


def ablate(
    model: ModelPatcher,
    layers: ModelLayers,
    ablation: Ablation,
    scope: Scope,
    positions: Positions | None = None,
) -> ModelPatcher:
    """A clone of `model` in which the ablation acts at run time; with nothing to do, a clone that is as `model` is."""
    ablated = model.clone()
    if not ablation:
        return ablated
    tell_branches(ablated)
    hooks = {
        layers.projection(layer, projection): ProjectionHook(replacement, scope, positions)
        for (layer, projection), replacement in ablation.items()
    }
    ablated.add_wrapper_with_key(WrappersMP.CALC_COND_BATCH, KEY, HookedProjections(hooks))
    if not scope.everywhere:
        add_patch(ablated, layers, note_options)
    return ablated


def ablate_weights(
    model: ModelPatcher,
    layers: ModelLayers,
    ablation: Ablation,
    scope: Scope,
    positions: Positions | None = None,
) -> ModelPatcher:
    """The same as a patch of the weights, for an ablation to zero or to a scale of all tokens in both branches."""
    if not scope.everywhere or positions is not None:
        raise ValueError(
            "apply: weights act on all tokens, in both branches, with start_percent 0 and end_percent 1; "
            "choose these, or 'run time'"
        )
    if not all(replacement.scales for replacement in ablation.values()):
        raise ValueError("apply: weights have no bias to hold a mean; choose mode 'zero' or 'scale', or 'run time'")
    ablated = model.clone()
    adapters = {}
    for (layer, projection), replacement in ablation.items():
        key = f"{layers.projection(layer, projection)}.weight"
        adapters[key] = NeuronAdapter({key}, [replacement])
    patch_weights(ablated, adapters, "choose 'run time'")
    return ablated
