"""Neurons ablated on the model patcher: at run time, after the projection that they are outputs of.

The host's slot for replacing attention belongs to other packs. So the projection's own forward is wrapped: whatever is
done with keys and values afterwards, by the host or by another pack, is done with what is left of them.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from comfy.model_patcher import ModelPatcher
from comfy.weight_adapter.base import WeightAdapterBase

from ...loco_core.choices import Choice
from ...loco_core.models.layers import ModelLayers
from ...loco_core.neurons.ablation import Ablation, Replacement
from ...loco_core.neurons.detection import Neurons
from .branches import Scope, tell_branches
from .families import unet

ALL_TOKENS = "all"


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
                f"token positions: the layers get {length} tokens, which are no chunks of {len(self.chosen)}; the text "
                "encoder takes others, or another node changes their number. Give 'all'"
            )
        return self.chosen[torch.arange(length) % len(self.chosen)]


_RANGE = re.compile(r"(\d+)(?:-(\d+))?")


def parse_positions(text: str, chunk_length: int) -> Positions | None:
    """Which token positions of a chunk a person wrote down; None for "all"."""
    if text.strip().lower() == ALL_TOKENS:
        return None
    chosen = torch.zeros(chunk_length, dtype=torch.bool)
    for entry in filter(None, (part.strip() for part in text.split(","))):
        match = _RANGE.fullmatch(entry)
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


@dataclass(slots=True)
class PresentCall:
    """The host's options for the text layer at work, noted by its patch just before its projections run.

    They are no part of what the patch is: neither its attributes (it has none) nor its repr tell them, so that a model
    that has sampled has the digest of one that has not.
    """

    options: dict = field(default_factory=dict, repr=False)

    def __call__(self, n: torch.Tensor, context: torch.Tensor, value: torch.Tensor, extra_options: dict):
        self.options = extra_options
        return n, context, value


@dataclass(frozen=True, eq=False)
class AblatedProjection:
    """A projection's forward, some of whose outputs are replaced, in the rows of a scope and at some positions."""

    forward: Callable[..., torch.Tensor]
    replacement: Replacement
    scope: Scope
    positions: Positions | None
    call: PresentCall

    def __call__(self, x: torch.Tensor, *arguments, **options) -> torch.Tensor:
        outputs = self.forward(x, *arguments, **options)
        if self.scope.everywhere and self.positions is None:
            return self.replacement(outputs)
        where = torch.zeros(outputs.shape[:2], dtype=torch.bool)
        if self.scope.everywhere:
            where[:] = True
        else:
            rows = len(outputs) // len(self.call.options["cond_or_uncond"])
            for chunk in self.scope.chunks(self.call.options):
                where[chunk * rows : (chunk + 1) * rows] = True
        if self.positions is not None:
            where &= self.positions.covers(outputs.shape[1])
        return self.replacement(outputs, where) if where.any() else outputs


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
    call = PresentCall()
    for (layer, projection), replacement in ablation.items():
        name = f"{layers.projection(layer, projection)}.forward"
        own = ablated.get_model_object(name)
        ablated.add_object_patch(name, AblatedProjection(own, replacement, scope, positions, call))
    if not scope.everywhere:
        tell_branches(ablated)
        unet.add_patch(ablated, call)
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
    refused = adapters.keys() - set(ablated.add_patches(adapters))
    if refused:
        raise ValueError(f"apply: 'weights' cannot patch this model's {min(refused)!r}; choose 'run time'")
    return ablated
