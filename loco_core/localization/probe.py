"""The probe: which layers make the difference between two prompts, in what the denoiser predicts.

    probed = probe(engine, plan, [window for size in (1, 2) for window in windows(len(engine.layers), size)])
    print(probed.share(best), probed.off_axis(best))

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

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ..images import batches, check_batch_rows
from ..models.engine import Engine, Intervention, Row, Sampling
from ..models.layers import LayerSet, Part
from ..prompts import PromptPair
from .plan import check_asked

# Called with (rows done, rows in all). An exception there ends the probe.
OnRows = Callable[[int, int], None]


@dataclass(frozen=True)
class ProbePlan:
    """Which prompts to probe: every pair x every seed, at `levels` noise levels spread over the steps of a run."""

    pairs: tuple[PromptPair, ...]
    seeds: tuple[int, ...]
    sampling: Sampling
    levels: int = 5
    part: Part = Part.BOTH

    def __post_init__(self) -> None:
        Part.parse_field(self, "part")
        check_asked(self.pairs, self.seeds)
        if not 1 <= self.levels <= self.sampling.steps:
            raise ValueError(f"levels: {self.levels}; give 1 to the number of steps, {self.sampling.steps}")

    @property
    def runs(self) -> list[tuple[PromptPair, int]]:
        """The pair and seed of every unmodified run: one of each pair, then the next seed."""
        return [(pair, seed) for seed in self.seeds for pair in self.pairs]

    @property
    def steps(self) -> list[int]:
        """The steps before which is probed; the first is pure noise."""
        return [level * self.sampling.steps // self.levels for level in range(self.levels)]


@dataclass(frozen=True, eq=False)
class Probe:
    """What was measured for each set of layers, run and level, as arrays [sets, runs, levels] or [runs, levels].

    along: <D(S) - D(none), d>. changed: |D(S) - D(none)|^2. whole: <d, d>. prompt: |D(none) - D("")|^2. rows: of the
    denoiser, all told.
    """

    plan: ProbePlan
    sets: tuple[LayerSet, ...]
    along: np.ndarray
    changed: np.ndarray
    whole: np.ndarray
    prompt: np.ndarray
    rows: int

    def shares(self, layers: LayerSet) -> np.ndarray:
        """share(S) for every run and level: [runs, levels]."""
        return self.along[self.sets.index(layers)] / self.whole

    def share(self, layers: LayerSet) -> float:
        """Of all runs and levels together: a ratio of sums, so that levels count by the difference made there."""
        return float(self.along[self.sets.index(layers)].sum() / self.whole.sum())

    def off_axis(self, layers: LayerSet) -> float:
        """The same of what lies beside d."""
        place = self.sets.index(layers)
        beside = np.maximum(self.changed[place] - self.along[place] ** 2 / self.whole, 0)
        return float(np.sqrt(beside.sum() / self.whole.sum()))

    @property
    def size(self) -> float:
        """|d| as a share of |D(none) - D("")|: how much of what the concept prompt does the target undoes."""
        return float(np.sqrt(self.whole.sum() / self.prompt.sum()))


def probe(
    engine: Engine,
    plan: ProbePlan,
    sets: Sequence[LayerSet],
    rows_per_batch: int,
    on_rows: OnRows = lambda done, total: None,
) -> Probe:
    """Measures the sets of layers; an error where a pair's prompts make no difference to the model at all."""
    check_batch_rows(rows_per_batch)
    prompts = list(dict.fromkeys(["", *(text for pair in plan.pairs for text in (pair.concept, pair.target))]))
    embeddings = dict(zip(prompts, engine.encode(prompts), strict=True))
    runs, steps, everywhere = plan.runs, plan.steps, engine.layers.all
    guided = 1 if plan.sampling.guidance == 1 else 2
    path, each = len(runs) * max(steps) * guided, len(sets) + 3
    done, total = path, path + len(runs) * len(steps) * each
    unmodified = [Row(embeddings[pair.concept], seed) for pair, seed in runs]
    latents = torch.cat(
        [engine.latents_at(batch, plan.sampling, steps) for batch in batches(unmodified, rows_per_batch)]
    )
    on_rows(done, total)
    measured = np.zeros((2 + 2 * len(sets), len(runs), len(steps)))
    for (run, (pair, seed)), (level, step) in itertools.product(enumerate(runs), enumerate(steps)):
        concept, target = embeddings[pair.concept], embeddings[pair.target]
        changes = [Intervention(layers, target, plan.part) for layers in (everywhere, *sets)]
        rows = [Row(concept, seed), Row(embeddings[""], seed), *(Row(concept, seed, change) for change in changes)]
        predictions = []
        for batch in batches(rows, rows_per_batch):
            own = latents[run, level].expand(len(batch), -1, -1, -1)
            predictions.append(engine.predict(batch, own, plan.sampling, step))
            done += len(batch)
            on_rows(done, total)
        measured[:, run, level] = _measured(torch.cat(predictions), pair)
    whole, prompt, *others = measured
    return Probe(
        plan=plan,
        sets=tuple(sets),
        along=np.array(others[: len(sets)]),
        changed=np.array(others[len(sets) :]),
        whole=whole,
        prompt=prompt,
        rows=total,
    )


def _measured(predictions: torch.Tensor, pair: PromptPair) -> np.ndarray:
    """<d, d>, |D(none) - D("")|^2, then <D(S) - D(none), d> and |D(S) - D(none)|^2 of each set, of predictions in the
    order none, "", all, sets.
    """
    flat = predictions.flatten(1).double()
    if not torch.isfinite(flat).all():
        raise ValueError(f"model: NaN or Inf in what it predicts for {pair.concept!r}; try a float32 U-Net")
    none, empty, everything, *rest = flat
    whole, changes = everything - none, torch.stack([one - none for one in rest]) if rest else flat[:0]
    if not whole.any():
        raise ValueError(f"target: {pair.target!r} makes no difference to {pair.concept!r} in this model")
    sizes = torch.stack([whole @ whole, (none - empty) @ (none - empty)])
    return torch.cat([sizes, changes @ whole, changes.square().sum(1)]).numpy()
