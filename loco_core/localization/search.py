"""LocoGen: which window of adjacent text layers carries an attribute (paper, section 5).

    result = search(engine, scorer, plan, rows_per_batch=8)
    print(report_text(result))

For every window of m layers, images are made in which the window's layers get the target prompt's embedding while all
other layers get the concept prompt's. With the attribute gone, the CLIP-Score against the concept prompt falls:
for a style or an object the window with the lowest mean score wins. A fact is updated rather than removed: there the
score is taken against the target prompt and the highest mean wins. All windows share the same pairs and seeds, so
their scores are paired.

First of all it is asked whether the concept shows at all: without it there is nothing to find. Then a strategy spends
the images (see `strategies`), and the scores are judged (see `verdict`).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ..models.engine import Engine
from ..models.layers import LayerSet
from ..scoring.clip_score import Scorer
from ..scoring.intervals import Estimate, estimate
from .evaluation import QUIET, Evaluation, SearchProgress
from .journal import Journal
from .plan import AUTO, SearchPlan
from .score_table import Cell, Evaluate, ScoreTable
from .strategies import Effort, exhaustive, grown, race
from .verdict import Kind, Verdict, judge, shows

logger = logging.getLogger(__name__)

# A race's window is confirmed if its effect in images of all steps is at least this share of that in the race's.
CONFIRMED_SHARE = 0.5


@dataclass(frozen=True)
class Confirmation:
    """The winner of a race in images of all steps: its effect there, and in the race's images of the same seeds."""

    effect: Estimate
    raced: Estimate

    @property
    def holds(self) -> bool:
        return self.effect.mean > 0 and self.effect.mean >= CONFIRMED_SHARE * self.raced.mean


@dataclass(frozen=True)
class SearchResult:
    """What a search found.

    layers: the winning window; empty where the concept has no effect. table: the scores by which windows were compared.
    window_count: how many windows there are to try. confirmation: None where the table's images had all steps already.
    cells, scores and thumbnails (uint8 [h, w, 3]) of every image in the order in which they were made. cost: in images
    of all steps. warnings: what the scorer could not see.
    """

    plan: SearchPlan
    layers: LayerSet
    table: ScoreTable
    window_count: int
    verdict: Verdict
    confirmation: Confirmation | None
    cells: tuple[Cell, ...]
    scores: np.ndarray
    thumbnails: tuple[np.ndarray, ...]
    cost: float
    warnings: tuple[str, ...]

    @property
    def windows(self) -> list[LayerSet]:
        """The windows tried, in order of their first layer."""
        tried = (window for window in self.table.windows if window != self.table.whole or window == self.layers)
        return sorted(tried, key=lambda window: (window.indices, len(window)))

    @property
    def baseline(self) -> np.ndarray:
        """Scores of the unmodified images: [images]."""
        return self.table.scores(None)

    def effect(self, window: LayerSet) -> Estimate:
        """What the target prompt changes there: positive as wanted, in points of CLIP-Score."""
        return estimate(self.table.effects(window), len(self.plan.pairs))

    def mean_score(self, window: LayerSet) -> float:
        """As it would be on all images: the unmodified images' mean, and the window's difference to them."""
        return float(self.baseline.mean() + self.plan.sign * self.effect(window).mean)

    def pictures(self, count: int) -> Mapping[LayerSet | None, list[np.ndarray | None]]:
        """Thumbnails of the first images, unmodified (None), of all layers, of every window: those of most steps, None
        where there is none.
        """
        pictures: dict[LayerSet | None, list[np.ndarray | None]] = {}
        for window in dict.fromkeys([None, self.table.whole, *self.windows]):
            pictures[window] = [self._picture(window, image) for image in range(count)]
        return pictures

    def _picture(self, window: LayerSet | None, image: int) -> np.ndarray | None:
        """The thumbnail of one image by one window, of the most steps that were made."""
        made = [place for place, cell in enumerate(self.cells) if (cell.window, cell.image) == (window, image)]
        return self.thumbnails[max(made, key=lambda place: self.cells[place].steps)] if made else None


def search(
    engine: Engine,
    scorer: Scorer,
    plan: SearchPlan,
    rows_per_batch: int,
    progress: SearchProgress = QUIET,
    journal: Journal | None = None,
) -> SearchResult:
    """Finds the window. With a `journal` it goes on where an earlier run was ended."""
    warnings = plan.unseen_by(scorer)
    for warning in warnings:
        logger.warning(warning)
    tried, pairs = plan.windows(engine.layers), len(plan.pairs)
    evaluation = Evaluation(engine, scorer, plan, rows_per_batch, progress, journal)
    table = ScoreTable(evaluation, len(plan.images), plan.steps, plan.sign, len(engine.layers))
    layers, confirmation = LayerSet((), len(engine.layers)), None
    if shows(table, pairs):
        budget = plan.most_images(engine.layers) - plan.reserve
        layers = find_window(table, plan, tried, budget)
        verdict = judge(table, layers, tried, pairs)
        if verdict.kind is Kind.NO_EFFECT:
            layers = LayerSet((), len(engine.layers))
        elif plan.confirming:
            confirmation = confirm(evaluation, plan, table, layers)
    else:
        verdict = Verdict(Kind.NO_EFFECT, estimate(table.effects(table.whole), pairs))
    return SearchResult(
        plan=plan,
        layers=layers,
        table=table,
        window_count=len(tried),
        verdict=verdict,
        confirmation=confirmation,
        cells=tuple(evaluation.cells),
        scores=np.array(evaluation.scores),
        thumbnails=tuple(evaluation.thumbnails),
        cost=evaluation.cost,
        warnings=warnings,
    )


def find_window(table: ScoreTable, plan: SearchPlan, tried: list[LayerSet], budget: float) -> LayerSet:
    """The window with the greatest effect; a race may cost as much as `budget` images of all steps."""
    pairs = len(plan.pairs)
    if plan.effort is Effort.EXHAUSTIVE:
        best = exhaustive(table, tried)
    else:
        best = race(table, tried, budget * plan.sampling.steps / plan.steps - table.made)
    if plan.window_size != AUTO:
        return best
    return grown(table, best, estimate(table.effects(table.whole), pairs).mean, pairs)


def confirm(evaluate: Evaluate, plan: SearchPlan, raced: ScoreTable, window: LayerSet) -> Confirmation:
    count, pairs = plan.confirming, len(plan.pairs)
    full = ScoreTable(evaluate, count, plan.sampling.steps, plan.sign, raced.layer_count)
    full.ask({window: count})
    return Confirmation(estimate(full.effects(window), pairs), estimate(raced.effects(window)[:count], pairs))
