"""The probe: which layers make the difference between two prompts, in what the denoiser predicts.

    prober = Prober(engine, ProbePlan(pairs, seeds=(0,), sampling=sampling), rows_per_batch=32)
    probe = prober.measure(windows(len(engine.layers), 2))
    print(probe.share(LayerSet((8, 9), 16)))

The search's question, asked where the effect arises instead of in finished images: no scorer, no VAE, and a set of
layers costs one row of the denoiser for each pair of prompts, seed and noise level. At a noise level that an unmodified
run passes, let D(S) be the denoised prediction of the conditional branch where the layers in S get the target prompt,
and all others the concept prompt. With d = D(all) - D(none):

    share(S) = <D(S) - D(none), d> / <d, d>                    0 for none, 1 for all
    off-axis(S) = |D(S) - D(none) - share(S) d| / |d|          what it changes beside that

Levels are pooled as ratios of sums, each weighted by how far the image moves towards the prediction until the next
level: 1 - sigma' / sigma, the length of Euler's step between the two.

It cannot say whether a person sees the concept: any two prompts make a difference. So it says how large that is, beside
the difference that the whole prompt makes: |d| / |D(none) - D("")|.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ..models.engine import Engine, Intervention, Row
from ..models.layers import LayerSet
from ..noise_levels import NoiseLevels, OnRows
from ..scoring.intervals import Estimate, estimate
from .attention import AttentionEngine
from .plan import ProbePlan

# The number of a run, and of a noise level.
Place = tuple[int, int]


@dataclass(frozen=True, eq=False)
class Probe:
    """What was measured, as arrays over runs and levels: [runs, levels], 0 at places that were not.

    along, changed: of each set, <D(S) - D(none), d> and |D(S) - D(none)|^2. whole: <d, d>. prompt: |D(none) - D("")|^2.
    weights: of the places: a level's own, in equal parts to the runs measured there. rows: what it took, in rows of the
    denoiser. attention: of each layer, the score of `attention` in the mean over places [layers]; None where the engine
    has none.
    """

    plan: ProbePlan
    along: Mapping[LayerSet, np.ndarray]
    changed: Mapping[LayerSet, np.ndarray]
    whole: np.ndarray
    prompt: np.ndarray
    weights: np.ndarray
    rows: int
    attention: np.ndarray | None = None

    def share(self, layers: LayerSet) -> float:
        """Of all runs and levels together."""
        return float(self._pooled(self.along[layers]).sum() / self._pooled(self.whole).sum())

    def shares_by_run(self, layers: LayerSet) -> np.ndarray:
        """Of all levels together: [runs]."""
        by_run: np.ndarray = self._pooled(self.along[layers]) / self._pooled(self.whole)
        return by_run

    def estimate(self, layers: LayerSet) -> Estimate:
        """The share with its 95 % interval, of which nothing is known from a single run.

        It is a ratio of sums over runs: to first order each run moves it by its own deviation from that ratio, beside
        the mean of what the ratio is of (Cochran, Sampling Techniques, section 6.3).
        """
        share, whole = self.share(layers), self._pooled(self.whole)
        moves = (self._pooled(self.along[layers]) - share * whole) / whole.mean()
        return estimate(share + moves, len(self.plan.pairs))

    def off_axis(self, layers: LayerSet) -> float:
        """What the set changes beside the difference, of all runs and levels together."""
        on_axis = self.along[layers] ** 2 / np.where(self.whole, self.whole, 1)
        beside = np.maximum(self.changed[layers] - on_axis, 0)
        return float(np.sqrt(self._pooled(beside).sum() / self._pooled(self.whole).sum()))

    def shares_by_level(self, layers: LayerSet) -> np.ndarray:
        """Of all runs together: [levels]."""
        by_level: np.ndarray = self.along[layers].sum(0) / self.whole.sum(0)
        return by_level

    @property
    def level_shares(self) -> np.ndarray:
        """How much of the difference is made at each level: [levels], 1 in sum."""
        made = (self.whole * self.weights).sum(0)
        shares: np.ndarray = made / made.sum()
        return shares

    @property
    def size(self) -> float:
        """|d| as a share of |D(none) - D("")|: how much of what the concept prompt does the target undoes."""
        return float(np.sqrt(self._pooled(self.whole).sum() / self._pooled(self.prompt).sum()))

    def _pooled(self, measured: np.ndarray) -> np.ndarray:
        """Sums over levels: [runs]."""
        by_run: np.ndarray = (measured * self.weights).sum(1)
        return by_run

    def best(self, sets: Iterable[LayerSet]) -> LayerSet:
        """The one of these sets with the greatest share."""
        return max(sets, key=self.share)


class Prober:
    """Measures sets of layers, more of them whenever it is asked to.

    What all sets are compared with is predicted once, and kept: two predictions for each run and level.
    """

    def __init__(
        self, engine: Engine, plan: ProbePlan, rows_per_batch: int, on_rows: OnRows = lambda done: None
    ) -> None:
        self._engine, self._plan = engine, plan
        prompts = list(dict.fromkeys(["", *(text for pair in plan.pairs for text in (pair.concept, pair.target))]))
        self._embeddings = dict(zip(prompts, engine.encode(prompts), strict=True))
        unmodified = [Row(self._embeddings[pair.concept], seed) for pair, seed in plan.runs]
        steps = [tuple(plan.steps[level] for level in levels) for levels in plan.levels_of_runs]
        self._levels = NoiseLevels(engine, unmodified, plan.sampling, steps, rows_per_batch, on_rows)
        self._none: dict[Place, torch.Tensor] = {}
        self._difference: dict[Place, torch.Tensor] = {}
        self._along: dict[LayerSet, np.ndarray] = {}
        self._changed: dict[LayerSet, np.ndarray] = {}
        shape = len(plan.runs), len(plan.steps)
        self._whole, self._prompt = np.zeros(shape), np.zeros(shape)
        self._weights = place_weights(plan, self._levels.weights)
        self._attention: list[np.ndarray] = []  # of places, [layers] each
        for level in range(len(plan.steps)):
            self._compare(level)
            self._score_attention(level)

    def measure(self, sets: Iterable[LayerSet]) -> Probe:
        """All that was measured so far, and these sets too."""
        new = [layers for layers in dict.fromkeys(sets) if layers not in self._along]
        along, changed = ({layers: np.zeros_like(self._whole) for layers in new} for _ in range(2))
        for level in range(len(self._plan.steps)):
            asked = list(itertools.product(self._plan.runs_at(level), new))
            for (run, layers), change in zip(asked, self._changes(level, asked), strict=True):
                along[layers][run, level] = change @ self._difference[run, level]
                changed[layers][run, level] = change @ change
        self._along |= along
        self._changed |= changed
        return Probe(
            plan=self._plan,
            along=dict(self._along),
            changed=dict(self._changed),
            whole=self._whole,
            prompt=self._prompt,
            weights=self._weights,
            rows=self._levels.rows,
            attention=np.mean(self._attention, 0) if self._attention else None,
        )

    @property
    def main_place(self) -> Place:
        """The run and the level at which the most of a difference is made."""
        run, level = np.unravel_index(np.argmax(self._whole * self._levels.weights), self._whole.shape)
        return int(run), int(level)

    def shares_at(self, place: Place, sets: Sequence[LayerSet]) -> list[float]:
        """Each set's share at one place alone: for questions that take many sets one after the other."""
        run, level = place
        changes = self._changes(level, [(run, layers) for layers in sets])
        return [float(change @ self._difference[place] / self._whole[place]) for change in changes]

    def _changes(self, level: int, asked: Sequence[tuple[int, LayerSet]]) -> list[torch.Tensor]:
        """D(S) - D(none) for a set S in each of these runs: [C x h x w] each."""
        predicted = self._levels.predict(level, [(run, self._changed_row(run, layers)) for run, layers in asked])
        return [own - self._none[run, level] for (run, _), own in zip(asked, predicted, strict=True)]

    def _compare(self, level: int) -> None:
        """Predicts what the sets are compared with; an error where the prompts make no difference at all."""
        asked, runs = [], self._plan.runs_at(level)
        for run in runs:
            pair, seed = self._plan.runs[run]
            own, empty = (Row(self._embeddings[prompt], seed) for prompt in (pair.concept, ""))
            asked += [(run, own), (run, empty), (run, self._changed_row(run, self._engine.layers.all))]
        predicted = self._levels.predict(level, asked)
        for number, run in enumerate(runs):
            place, (none, nothing_said, other) = (run, level), predicted[3 * number : 3 * number + 3]
            self._none[place], self._difference[place] = none, other - none
            if not self._difference[place].any():
                pair, _ = self._plan.runs[run]
                raise ValueError(f"target: {pair.target!r} makes no difference to {pair.concept!r} in this model")
            self._whole[place] = self._difference[place].square().sum()
            self._prompt[place] = (none - nothing_said).square().sum()

    def _score_attention(self, level: int) -> None:
        engine = self._engine
        if engine.layers.family.joint and isinstance(engine, AttentionEngine):
            asked = [(run, self._changed_row(run, engine.layers.all)) for run in self._plan.runs_at(level)]
            scores = [own.double().numpy() for own in self._levels.of_rows(level, asked, engine.attention_scores)]
            self._attention += [own for own in scores if np.isfinite(own).all() and own.any()]

    def _changed_row(self, run: int, layers: LayerSet) -> Row:
        pair, seed = self._plan.runs[run]
        change = Intervention(layers, self._embeddings[pair.target], self._plan.part)
        return Row(self._embeddings[pair.concept], seed, change)


def place_weights(plan: ProbePlan, weights: np.ndarray) -> np.ndarray:
    """Each level's weight [levels], in equal parts to the runs measured there: [runs, levels]."""
    measured = np.array([[level in levels for level in range(len(weights))] for levels in plan.levels_of_runs])
    parts: np.ndarray = measured * weights / measured.sum(0)
    return parts
