"""Which neurons carry a concept by what happens without them, rather than by what they say: ablated, scored, refined.

One neuron alone changes next to nothing, and others say the same. So neurons are ablated in groups, many groups at a
time: in a two-level screening design (Plackett and Burman, 1946) every group is ablated in half of the runs, and each
other group as often with it as without it. A group's effect is the mean value of the runs with it less that of the
runs without it; the value is the share of the concept that is removed plus the share of the rest that is kept. Then
the best groups are split, and the halves are measured in the same way.

    request = EffectsRequest(plan, neurons, runs=32, rounds=2)
    neurons = measure_effects(request, engine, ablated, scorer, rows_per_batch=8)
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import torch
from scipy.linalg import hadamard

from ..choices import check_one_of
from ..comparison.erasure import ErasurePlan, ErasureResult, image_maker, measure_after, measure_before
from ..images import QUIET, Progress
from ..models.engine import Engine
from ..scoring.clip_score import Scorer
from .ablation import Ablation, Mode, ablation, by_place
from .detection import Neurons, Place

# Sizes of a design. It tells half as many groups apart, less one.
RUNS = (16, 32, 64)

Group = list[tuple[Place, int]]
Item = TypeVar("Item")


@dataclass(frozen=True, eq=False)
class EffectsRequest:
    """Of which neurons the effect is measured, in how many rounds of how many runs, on which images."""

    plan: ErasurePlan
    neurons: Neurons
    runs: int = 32
    rounds: int = 2
    mode: Mode = Mode.MEAN

    def __post_init__(self) -> None:
        Mode.parse_field(self, "mode")
        check_one_of(self.runs, RUNS, "runs")
        if self.rounds < 1:
            raise ValueError(f"rounds: {self.rounds}; give at least 1")
        self.plan.check_keeps()

    @property
    def images(self) -> int:
        """How many images the measurement needs."""
        plan = self.plan
        return (len(plan.pairs) + (1 + self.runs * self.rounds) * len(plan.shown)) * len(plan.seeds)


def measure_effects(
    request: EffectsRequest,
    engine: Engine,
    ablated: Callable[[Ablation], Engine],
    scorer: Scorer,
    rows_per_batch: int,
    progress: Progress = QUIET,
) -> Neurons:
    """The same neurons with their measured effects: per neuron, its group's effect over the size of the group.

    The first groups are neurons of one place that are next to each other by signal. `ablated(ablation)` is the engine
    with that ablation.
    """
    neurons = request.neurons
    maker = image_maker(request.plan, rows_per_batch, request.images, progress)
    before = measure_before(engine, scorer, request.plan, maker)
    before.check_shows()
    design = screening_design(request.runs)
    groups = first_groups(neurons, design.shape[1])
    effects = {place: torch.zeros(len(score.z), dtype=torch.float64) for place, score in neurons.scores.items()}
    for number in range(1, request.rounds + 1):
        values = []
        for run, row in enumerate(design[:, : len(groups)], 1):
            chosen = [neuron for group, taken in zip(groups, row, strict=True) if taken for neuron in group]
            change = ablation(neurons, by_place(chosen), request.mode)
            label = f"round {number} of {request.rounds}, run {run} of {request.runs}"
            values.append(_value(measure_after(before, ablated(change), scorer, maker, label)))
        found = group_effects(design[:, : len(groups)], np.array(values))
        for group, effect in zip(groups, found, strict=True):
            for place, neuron in group:
                effects[place][neuron] = effect / len(group)
        groups = _refined(groups, found, design.shape[1])
    scores = {place: replace(score, effect=effects[place]) for place, score in neurons.scores.items()}
    return replace(neurons, scores=scores)


def screening_design(runs: int) -> np.ndarray:
    """Which groups are ablated in which run: booleans [runs, runs / 2 - 1], by a Hadamard matrix.

    Every run has its complement (fold-over), so that what two groups do together is not taken for what one does.
    """
    half = hadamard(runs // 2)[:, 1:] > 0
    return np.concatenate([half, ~half])


def group_effects(design: np.ndarray, values: np.ndarray) -> np.ndarray:
    """[groups]: the mean of the runs' `values` [runs] with each group, less that without it."""
    signs = np.where(design, 1.0, -1.0)
    return 2 * signs.T @ values / len(values)


def first_groups(neurons: Neurons, most: int) -> list[Group]:
    """`most` groups, or one for each neuron: about as large as each other, those of a place by rank. Where there are
    more places than groups, a group is of several whole places.
    """
    places: dict[Place, Group] = {}
    for place, neuron in neurons.ranked():
        places.setdefault(place, []).append((place, neuron))
    if len(places) > most:
        return [sum(together, []) for together in _split(list(places.values()), most)]
    parts = dict.fromkeys(places, 1)
    for _ in range(most - len(places)):
        parts[max(places, key=lambda place: len(places[place]) / parts[place])] += 1
    return [part for place, group in places.items() for part in _split(group, min(parts[place], len(group)))]


def _refined(groups: Sequence[Group], effects: np.ndarray, most: int) -> list[Group]:
    """The halves of the groups with the largest effects, `most` at most; a single neuron stays as it is."""
    best = np.argsort(-effects, kind="stable")[: most // 2]
    return [half for place in best for half in _split(groups[place], min(2, len(groups[place])))]


def _split(items: list[Item], parts: int) -> list[list[Item]]:
    bounds = np.linspace(0, len(items), parts + 1).round().astype(int)
    return [items[start:end] for start, end in itertools.pairwise(bounds)]


def _value(result: ErasureResult) -> float:
    return min(1.0, max(0.0, result.removed)) + result.kept_share
