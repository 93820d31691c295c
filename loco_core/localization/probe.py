"""The probe: which layers make the difference between two prompts, in what the denoiser predicts.

    prober = Prober(engine, plan, rows_per_batch=32)
    result = find_window(prober, engine.layers)
    print(result.kind, result.layers, result.probe.share(result.layers))

The search's question, asked where the effect arises instead of in finished images: no scorer, no VAE, and a window
costs one row of the denoiser for each pair of prompts, seed and noise level. At a noise level that an unmodified run
passes, let D(S) be the denoised prediction of the conditional branch where the layers in S get the target prompt, and
all others the concept prompt. With d = D(all) - D(none):

    share(S) = <D(S) - D(none), d> / <d, d>                    0 for none, 1 for all
    off-axis(S) = |D(S) - D(none) - share(S) d| / |d|          what it changes beside that

It cannot say whether a person sees the concept: any two prompts make a difference. So it says how large that is, beside
the difference that the whole prompt makes: |d| / |D(none) - D("")|.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ..images import batches, check_batch_rows
from ..models.engine import Engine, Intervention, Row, Sampling
from ..models.layers import LayerSet, ModelLayers, Part, windows
from ..prompts import PromptPair
from ..scoring.intervals import Estimate, estimate
from .plan import check_asked
from .verdict import LEAST_SHARE, SECOND_HOME, Kind

# A layer belongs to a window if it adds at least this share of the whole difference.
MEMBER_SHARE = 0.1
# Below this size beside that of the whole prompt, a difference is next to none.
HARDLY_ANY = 0.05

# Called with the rows of the denoiser done so far. An exception there ends the probe.
OnRows = Callable[[int], None]


@dataclass(frozen=True)
class ProbePlan:
    """Which prompts to probe: every pair x every seed, at `levels` noise levels spread over the steps of a run.

    `taken`: how the lines that asked for the pairs were taken, in sentences.
    """

    pairs: tuple[PromptPair, ...]
    seeds: tuple[int, ...]
    sampling: Sampling
    levels: int = 5
    part: Part = Part.BOTH
    taken: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        Part.parse_field(self, "part")
        check_asked(self.pairs, self.seeds)
        if not 1 <= self.levels <= self.sampling.steps:
            raise ValueError(f"levels: {self.levels}; give 1 to the number of steps, {self.sampling.steps}")

    @property
    def runs(self) -> list[tuple[PromptPair, int]]:
        """The pair and seed of every unmodified run: one of each pair, then the next seed."""
        return [(pair, seed) for seed in self.seeds for pair in self.pairs]

    def about_rows(self, layers: ModelLayers) -> int:
        """About how many rows of the denoiser it takes: one window is shrunk by a layer, and then grown by one."""
        first, runs = layers.family.first_window_size(len(layers)), len(self.runs)
        guided = 1 if self.sampling.guidance == 1 else 2
        sets = len(layers) - first + 1 + 4
        return runs * (max(self.steps) * guided + self.levels * (3 + sets))

    @property
    def steps(self) -> list[int]:
        """The steps before which is probed; the first is pure noise."""
        return [level * self.sampling.steps // self.levels for level in range(self.levels)]


@dataclass(frozen=True, eq=False)
class Probe:
    """What was measured, as arrays over runs and levels: [runs, levels].

    along, changed: of each set, <D(S) - D(none), d> and |D(S) - D(none)|^2. whole: <d, d>. prompt: |D(none) - D("")|^2.
    rows: what it took, in rows of the denoiser.
    """

    plan: ProbePlan
    along: Mapping[LayerSet, np.ndarray]
    changed: Mapping[LayerSet, np.ndarray]
    whole: np.ndarray
    prompt: np.ndarray
    rows: int

    @property
    def sets(self) -> list[LayerSet]:
        """The sets measured, in the order in which they were."""
        return list(self.along)

    def shares(self, layers: LayerSet) -> np.ndarray:
        """share(S) for every run and level: [runs, levels]."""
        return self.along[layers] / self.whole

    def share(self, layers: LayerSet) -> float:
        """Of all runs and levels together: a ratio of sums, so that levels count by the difference made there."""
        return float(self.along[layers].sum() / self.whole.sum())

    def estimate(self, layers: LayerSet) -> Estimate:
        """The share with its 95 % interval, of which nothing is known from a single run."""
        return estimate(self.along[layers].sum(1) / self.whole.sum(1), len(self.plan.pairs))

    def off_axis(self, layers: LayerSet) -> float:
        """What the set changes beside the difference, of all runs and levels together."""
        beside = np.maximum(self.changed[layers] - self.along[layers] ** 2 / self.whole, 0)
        return float(np.sqrt(beside.sum() / self.whole.sum()))

    def shares_by_level(self, layers: LayerSet) -> np.ndarray:
        """Of all runs together: [levels]."""
        by_level: np.ndarray = self.along[layers].sum(0) / self.whole.sum(0)
        return by_level

    @property
    def size(self) -> float:
        """|d| as a share of |D(none) - D("")|: how much of what the concept prompt does the target undoes."""
        return float(np.sqrt(self.whole.sum() / self.prompt.sum()))

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
        check_batch_rows(rows_per_batch)
        self._engine, self._plan, self._rows_per_batch, self._on_rows = engine, plan, rows_per_batch, on_rows
        prompts = list(dict.fromkeys(["", *(text for pair in plan.pairs for text in (pair.concept, pair.target))]))
        self._embeddings = dict(zip(prompts, engine.encode(prompts), strict=True))
        unmodified = [Row(self._embeddings[pair.concept], seed) for pair, seed in plan.runs]
        paths = [engine.latents_at(batch, plan.sampling, plan.steps) for batch in batches(unmodified, rows_per_batch)]
        self._latents = torch.cat(paths)
        self._rows = len(unmodified) * max(plan.steps) * (1 if plan.sampling.guidance == 1 else 2)
        self._none: dict[tuple[int, int], torch.Tensor] = {}
        self._difference: dict[tuple[int, int], torch.Tensor] = {}
        self._along: dict[LayerSet, np.ndarray] = {}
        self._changed: dict[LayerSet, np.ndarray] = {}
        shape = len(plan.runs), len(plan.steps)
        self._whole, self._prompt = np.zeros(shape), np.zeros(shape)
        for place in np.ndindex(*shape):
            self._compare(place)

    def measure(self, sets: Iterable[LayerSet]) -> Probe:
        """All that was measured so far, and these sets too."""
        new = [layers for layers in dict.fromkeys(sets) if layers not in self._along]
        along, changed = ({layers: np.zeros_like(self._whole) for layers in new} for _ in range(2))
        for place in np.ndindex(*self._whole.shape) if new else ():
            predictions = self._predict(place, [self._changed_row(place, layers) for layers in new])
            for layers, change in zip(new, predictions - self._none[place], strict=True):
                along[layers][place] = change @ self._difference[place]
                changed[layers][place] = change @ change
        self._along |= along
        self._changed |= changed
        return Probe(self._plan, dict(self._along), dict(self._changed), self._whole, self._prompt, self._rows)

    def _compare(self, place: tuple[int, int]) -> None:
        """Predicts what the sets are compared with; an error where the prompts make no difference at all."""
        pair, seed = self._plan.runs[place[0]]
        concept, empty = self._embeddings[pair.concept], self._embeddings[""]
        everything = self._changed_row(place, self._engine.layers.all)
        none, nothing_said, other = self._predict(place, [Row(concept, seed), Row(empty, seed), everything])
        self._none[place], self._difference[place] = none, other - none
        if not self._difference[place].any():
            raise ValueError(f"target: {pair.target!r} makes no difference to {pair.concept!r} in this model")
        self._whole[place] = self._difference[place].square().sum()
        self._prompt[place] = (none - nothing_said).square().sum()

    def _changed_row(self, place: tuple[int, int], layers: LayerSet) -> Row:
        pair, seed = self._plan.runs[place[0]]
        change = Intervention(layers, self._embeddings[pair.target], self._plan.part)
        return Row(self._embeddings[pair.concept], seed, change)

    def _predict(self, place: tuple[int, int], rows: Sequence[Row]) -> torch.Tensor:
        """Of each row [rows, C x h x w], in float64."""
        run, level = place
        predictions = []
        for batch in batches(rows, self._rows_per_batch):
            latents = self._latents[run, level].expand(len(batch), -1, -1, -1)
            predictions.append(self._engine.predict(batch, latents, self._plan.sampling, self._plan.steps[level]))
            self._rows += len(batch)
            self._on_rows(self._rows)
        flat = torch.cat(predictions).flatten(1).double()
        if not torch.isfinite(flat).all():
            concept = self._plan.runs[run][0].concept
            raise ValueError(f"model: NaN or Inf in what it predicts for {concept!r}; try a float32 U-Net")
        return flat


@dataclass(frozen=True, eq=False)
class ProbeResult:
    """Where a difference is made. layers: the smallest window that makes it. tried: the windows of the size that the
    probe began with. probe: all that was measured.
    """

    layers: LayerSet
    tried: tuple[LayerSet, ...]
    probe: Probe

    @property
    def rival(self) -> LayerSet | None:
        """The best of the windows tried that share no layer with the one found."""
        apart = [window for window in self.tried if not set(window) & set(self.layers)]
        return self.probe.best(apart) if apart else None

    @property
    def kind(self) -> Kind:
        if self.probe.size < HARDLY_ANY:
            return Kind.NO_EFFECT
        if self.rival is None:
            return Kind.NO_RIVAL
        share, other = self.probe.share(self.layers), self.probe.share(self.rival)
        return Kind.LOCALIZED if share >= LEAST_SHARE and other <= SECOND_HOME * share else Kind.SPREAD


def find_window(prober: Prober, layers: ModelLayers) -> ProbeResult:
    """The smallest window that makes the difference.

    It begins with the best window of the family's usual size. Layers at its ends are taken in or left out by what they
    add, at least MEMBER_SHARE of the whole difference.
    """
    count = len(layers)
    tried = windows(count, min(count, layers.family.first_window_size(count)))
    probed = prober.measure(tried)
    window = probed.best(tried)
    while len(window) > 1:
        smaller = [LayerSet(part, count) for part in (window.indices[1:], window.indices[:-1])]
        probed = prober.measure(smaller)
        rest = probed.best(smaller)
        if probed.share(window) - probed.share(rest) >= MEMBER_SHARE:
            break
        window = rest
    while len(window) < count:
        first, last = window.indices[0], window.indices[-1]
        ends = [end for end in (first - 1, last + 1) if 0 <= end < count]
        larger = [LayerSet((*window.indices, end), count) for end in ends]
        probed = prober.measure(larger)
        more = probed.best(larger)
        if probed.share(more) - probed.share(window) < MEMBER_SHARE:
            break
        window = more
    return ProbeResult(window, tuple(tried), probed)
