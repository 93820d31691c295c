"""How many neurons to ablate: removal against what is kept, for a row of counts on the same prompts and seeds.

More neurons remove more and keep less (paper, section 7). The count that a person would choose is the one with the
largest harmonic mean of both; among counts that are as good, the smallest: none where no count removes anything.

    request = SweepRequest(plan, neurons, parse_counts("5%, 10%, 25%", neurons.count))
    result = sweep_neurons(request, engine, ablated, scorer, rows_per_batch=8)
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..comparison.erasure import Before, ErasurePlan, ErasureResult, image_maker, measure_after, measure_before
from ..images import QUIET, Progress
from ..models.engine import Engine
from ..prompt_text import plain_text
from ..report import Report
from ..scoring.clip_score import Scorer
from .ablation import Ablation, ChooseBy, Mode, ablation, chosen_neurons
from .detection import Neurons, Ranking

# Counts whose harmonic mean is that close to the best are as good: seeds alone make such differences.
AS_GOOD = 0.02

_COUNT = re.compile(r"(\d+)(%?)")


@dataclass(frozen=True)
class SweepResult:
    """The result of each count, ascending; of `total` neurons. before: the images without an ablation."""

    counts: tuple[int, ...]
    results: tuple[ErasureResult, ...]
    total: int
    before: Before

    @property
    def removed(self) -> np.ndarray:
        """[counts], in 0..1: 0 where the concept's images score as before, 1 where they score as the targets'."""
        return np.clip([result.removed for result in self.results], 0, 1)

    @property
    def kept(self) -> np.ndarray:
        """[counts], in 0..1: what the kept prompts' images keep of their score."""
        return np.array([result.kept_share for result in self.results])

    @property
    def best(self) -> int:
        """The place, in 0 and then the `counts`, of the count to choose."""
        both = self.removed + self.kept
        harmonic = np.divide(2 * self.removed * self.kept, both, out=np.zeros_like(both), where=both > 0)
        harmonic = np.concatenate([[0.0], harmonic])  # nothing is removed by none
        return int((harmonic >= harmonic.max() - AS_GOOD).argmax())

    @property
    def knee(self) -> int:
        """The count to choose; 0 where no count removes more than none."""
        return (0, *self.counts)[self.best]


def parse_counts(text: str, total: int) -> tuple[int, ...]:
    """The counts a person wrote down, ascending and without 0: numbers, or percents of the `total`."""
    counts = set()
    for entry in filter(None, (part.strip() for part in text.split(","))):
        match = _COUNT.fullmatch(entry)
        if match is None:
            raise ValueError(f"counts: {entry!r} is not understood; give numbers or percents like '10, 100, 25%'")
        count = round(total * int(match[1]) / 100) if match[2] else int(match[1])
        if count > total:
            raise ValueError(f"counts: {entry!r}; there are {total} neurons, so give 0 to {total}")
        counts.add(count)
    counts.discard(0)
    if not counts:
        raise ValueError("counts: empty; give numbers or percents like '10, 100, 25%'")
    return tuple(sorted(counts))


@dataclass(frozen=True, eq=False)
class SweepRequest:
    """How many of which neurons are ablated in turn, and the images that show what it does."""

    plan: ErasurePlan
    neurons: Neurons
    counts: tuple[int, ...]
    ranking: Ranking = Ranking.SIGNAL
    mode: Mode = Mode.MEAN

    def __post_init__(self) -> None:
        Ranking.parse_field(self, "ranking", "rank by")
        Mode.parse_field(self, "mode")
        self.plan.check_keeps()

    @property
    def images(self) -> int:
        """How many images the sweep needs."""
        plan = self.plan
        return (len(plan.pairs) + (1 + len(self.counts)) * len(plan.shown)) * len(plan.seeds)

    def change(self, count: int) -> Ablation:
        """The ablation of so many neurons."""
        chosen = chosen_neurons(self.neurons, ChooseBy.COUNT, count, ranking=self.ranking)
        return ablation(self.neurons, chosen, self.mode)


def sweep_neurons(
    request: SweepRequest,
    engine: Engine,
    ablated: Callable[[Ablation], Engine],
    scorer: Scorer,
    rows_per_batch: int,
    progress: Progress = QUIET,
) -> SweepResult:
    """Measures every count. `ablated(ablation)` is the engine with that ablation."""
    changes = {count: request.change(count) for count in request.counts}
    maker = image_maker(request.plan, rows_per_batch, request.images, progress)
    before = measure_before(engine, scorer, request.plan, maker)
    before.check_shows()
    results = [
        measure_after(before, ablated(change), scorer, maker, f"{count} neurons") for count, change in changes.items()
    ]
    return SweepResult(request.counts, tuple(results), request.neurons.count, before)


def sweep_report(result: SweepResult) -> Report:
    """How many neurons to choose; then what each count that was tried removes and keeps."""
    others = "try more neurons, 'keys and values', or other layers"
    if not result.knee:
        chosen = f"choose none: no count removes any of the concept and keeps the rest; {others}"
    elif result.removed.max() < 0.5:
        chosen = f"choose {result.knee} of {result.total} neurons, but no count removes half of the concept: {others}"
    else:
        chosen = f"choose {result.knee} of {result.total} neurons"
    lines = ["neurons   removed   kept"]
    for count, removed, kept in zip(result.counts, result.removed, result.kept, strict=True):
        mark = "  <-" if count == result.knee else ""
        lines.append(f"{count:7d}   {removed:6.0%}   {kept:4.0%}{mark}")
    unweighed = [repr(plain_text(prompt)) for prompt, share in result.results[0].kept_shares.items() if np.isnan(share)]
    if unweighed:
        lines.append(f"not weighed: {', '.join(unweighed)}; the target prompts' images fit it as well")
    return Report((chosen, *result.before.warnings), tuple(lines))
