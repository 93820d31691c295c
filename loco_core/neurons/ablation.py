"""Ablation: which of the detected neurons are replaced, and what takes the place of their outputs (paper, section 7).

chosen = chosen_neurons(neurons, ChooseBy.COUNT, USUAL)
change = ablation(neurons, chosen, Mode.MEAN)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch

from ..choices import Choice
from .detection import Neurons, Place, Ranking

# The count that stands for the usual share of the neurons that there are. As many as this share removed a style from
# the demo model (benchmarks/neurons.py).
USUAL, USUAL_SHARE = -1, 0.25


class ChooseBy(Choice):
    """How many neurons are chosen: so many of all, so many of each layer, or all from a threshold of |z| on."""

    COUNT = "count"
    COUNT_PER_LAYER = "count per layer"
    THRESHOLD = "threshold"


class Mode(Choice):
    """What takes the place of a neuron's output: its mean over the plain prompts, zero, or a multiple of its own."""

    MEAN = "mean"
    ZERO = "zero"
    SCALE = "scale"


@dataclass(frozen=True, eq=False)
class Replacement:
    """What becomes of some outputs of one projection: factor x own + shift. neurons: [k] indices, shift: [k]."""

    neurons: torch.Tensor
    factor: float
    shift: torch.Tensor

    def __call__(self, outputs: torch.Tensor, where: torch.Tensor | None = None) -> torch.Tensor:
        """The outputs [..., T, d_out] with those neurons replaced, at the tokens where `where` [..., T] is true."""
        neurons, shift = self.neurons.to(outputs.device), self.shift.to(outputs)
        own = outputs[..., neurons]
        new = self.factor * own + shift if self.factor else shift.expand_as(own)
        if where is not None:
            new = torch.where(where.to(outputs.device)[..., None], new, own)
        return outputs.index_copy(-1, neurons, new)

    @property
    def scales(self) -> bool:
        """Whether nothing is shifted: then a change of the weights does the same."""
        return not self.shift.any()

    def weight_change(self, weight: torch.Tensor) -> torch.Tensor:
        """What added to a weight [d_out, d] does the same to its outputs, where it `scales`."""
        neurons, change = self.neurons.to(weight.device), torch.zeros_like(weight)
        change[neurons] = (self.factor - 1) * weight[neurons]
        return change


Ablation = Mapping[Place, Replacement]


def chosen_neurons(
    neurons: Neurons,
    choose_by: ChooseBy,
    count: int,
    threshold: float = 0.0,
    ranking: Ranking = Ranking.SIGNAL,
) -> dict[Place, torch.Tensor]:
    """The neurons that stand first in the ranking, by place, their dimensions ascending.

    `count` of all, or of each layer (keys and values together), or those with |z| of `threshold` or more. The count
    USUAL is a share of those that there are.
    """
    ranked, choose_by = neurons.ranked(ranking), ChooseBy.parse(choose_by, "choose by")
    if choose_by is ChooseBy.THRESHOLD:
        return by_place((place, i) for place, i in ranked if abs(neurons.scores[place].z[i]) >= threshold)
    groups, where = [ranked], neurons.layers.named
    if choose_by is ChooseBy.COUNT_PER_LAYER:
        groups, where = [[one for one in ranked if one[0][0] == layer] for layer in neurons.layers], "a layer"
    fewest = min(len(group) for group in groups)
    if count == USUAL:
        count = round(USUAL_SHARE * fewest)
    if not 0 <= count <= fewest:
        raise ValueError(f"count: {count}; there are {fewest} of these neurons in {where}, so give 0 to {fewest}")
    return by_place(neuron for group in groups for neuron in group[:count])


def by_place(neurons: Iterable[tuple[Place, int]]) -> dict[Place, torch.Tensor]:
    """The neurons' output dimensions, ascending, by place."""
    chosen: dict[Place, list[int]] = {}
    for place, neuron in neurons:
        chosen.setdefault(place, []).append(neuron)
    return {place: torch.tensor(sorted(numbers)) for place, numbers in chosen.items()}


def ablation(
    neurons: Neurons, chosen: Mapping[Place, torch.Tensor], mode: Mode = Mode.MEAN, scale: float = 0.0
) -> Ablation:
    """What becomes of the chosen neurons: the mean over the plain prompts, zero, or `scale` x own."""
    mode = Mode.parse(mode, "mode")
    if not 0 <= scale <= 2:
        raise ValueError(f"scale: {scale}; give 0 to 2")
    factor = scale if mode is Mode.SCALE else 0.0
    means = {place: neurons.scores[place].mean[numbers] for place, numbers in chosen.items()}
    return {
        place: Replacement(numbers, factor, means[place] * (mode is Mode.MEAN)) for place, numbers in chosen.items()
    }
