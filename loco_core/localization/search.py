"""LocoGen: which text layers carry an attribute (paper, section 5).

    result = search(engine, scorer, plan, rows_per_batch=8)
    print(search_report(result))

By `probe`, the default, the layers are found in what the denoiser predicts (see `probe` and `localize`). Images then
show whether it is so: unmodified, and with the target prompt in all layers, in the window found, in the windows beside
it, in its best rival, and in the smallest set of layers. A scorer is not needed; where there is one, it confirms.

By `exhaustive` it is the paper's experiment. For every window of m layers, images are made in which the window's layers
get the target prompt's embedding while all other layers get the concept prompt's. With the attribute gone, the
CLIP-Score against the concept prompt falls: for a style or an object the window with the lowest mean score wins. A fact
is updated rather than removed: there the score is taken against the target prompt and the highest mean wins. All
windows share the same pairs and seeds, so their scores are paired.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ..models.engine import Engine
from ..models.layers import LayerSet, ModelLayers, windows
from ..scoring.clip_score import LEAST_EFFECT, Scorer
from ..scoring.intervals import Estimate, estimate
from .evaluation import QUIET, Evaluation, SearchProgress
from .journal import Journal
from .localize import Localization, first_size, localize
from .plan import Effort, SearchPlan
from .probe import Prober
from .score_table import Cell, ScoreTable
from .verdict import Kind, Verdict, judge, shows

logger = logging.getLogger(__name__)

# What a probe found is confirmed if in images its effect is at least this share of that of all layers.
CONFIRMED_SHARE = 0.5


@dataclass(frozen=True)
class SearchResult:
    """What a search found.

    layers: the window; empty where the concept has no effect. smallest: the smallest set of layers, adjacent or not,
    that is known. located: what the probe found; None where it was not asked. verdict: of the scores of every window;
    None where windows were probed. table: the images' scores. cells, scores (NaN without a scorer) and thumbnails
    (uint8 [h, w, 3]) of every image in the order in which they were made. warnings: what the scorer could not see.
    """

    plan: SearchPlan
    layers: LayerSet
    smallest: LayerSet
    located: Localization | None
    verdict: Verdict | None
    table: ScoreTable
    cells: tuple[Cell, ...]
    scores: np.ndarray
    thumbnails: tuple[np.ndarray, ...]
    warnings: tuple[str, ...]

    @property
    def kind(self) -> Kind:
        if self.verdict is not None:
            return self.verdict.kind
        assert self.located is not None  # one of the two has judged
        return self.located.kind

    @property
    def scored(self) -> bool:
        """Whether a scorer has seen the images."""
        return not np.isnan(self.scores).any()

    @property
    def rows(self) -> int:
        """What it took, in rows of the denoiser."""
        probed = self.located.probe.rows if self.located else 0
        return probed + len(self.cells) * self.plan.sampling.steps * self.plan.sampling.rows_per_step

    @property
    def shares(self) -> dict[LayerSet, float]:
        """What each window that was compared makes of what all layers make, in order of their first layer."""
        if self.verdict is None and self.located is not None:
            tried = [*self.located.tried, self.located.layers]
            shares = {window: self.located.probe.share(window) for window in tried}
        else:
            whole = self.effect(self.table.whole).mean
            tried = [window for window in self.table.sets if window != self.table.whole or window == self.layers]
            shares = {window: self.effect(window).mean / whole for window in tried}
        return dict(sorted(shares.items(), key=lambda item: (item[0].indices, len(item[0]))))

    @property
    def confirmed(self) -> bool | None:
        """Whether the images' scores say what the probe says; None where nobody has scored them, or all windows."""
        if not self.scored or not self.layers or self.plan.effort is Effort.EXHAUSTIVE:
            return None
        whole, effect = self.effect(self.table.whole).mean, self.effect(self.layers).mean
        return whole >= LEAST_EFFECT and effect >= CONFIRMED_SHARE * whole

    @property
    def baseline(self) -> np.ndarray:
        """Scores of the unmodified images: [images]."""
        return self.table.scores(None)

    def effect(self, window: LayerSet) -> Estimate:
        """What the target prompt changes there: positive as wanted, in points of CLIP-Score."""
        return estimate(self.table.effects(window), len(self.plan.pairs))

    def mean_score(self, window: LayerSet) -> float:
        return float(self.table.scores(window).mean())

    def pictures(self, count: int) -> Mapping[LayerSet | None, list[np.ndarray]]:
        """Thumbnails of the first images: unmodified (None), of all layers, of every other set."""
        made = {(cell.window, cell.image): picture for cell, picture in zip(self.cells, self.thumbnails, strict=True)}
        others = sorted(self.table.sets, key=lambda layers: (layers.indices, len(layers)))
        sets = dict.fromkeys([None, self.table.whole, *others])
        return {layers: [made[layers, image] for image in range(count)] for layers in sets}


def search(
    engine: Engine,
    scorer: Scorer | None,
    plan: SearchPlan,
    rows_per_batch: int,
    progress: SearchProgress = QUIET,
    journal: Journal | None = None,
) -> SearchResult:
    """Finds the layers. With a `journal` it makes only the images that an earlier run has not."""
    check_scorer(scorer, plan.effort)
    warnings = () if scorer is None else plan.unseen_by(scorer)
    for warning in warnings:
        logger.warning(warning)
    located, verdict, layers = None, None, engine.layers
    if plan.probe is not None:
        located = localize(Prober(engine, plan.probe, rows_per_batch, progress.on_rows), layers, plan.window_size)
    evaluation = Evaluation(engine, scorer, plan, rows_per_batch, progress, journal)
    table = ScoreTable(evaluation, len(plan.images), plan.sign, len(layers))
    if plan.effort is Effort.EXHAUSTIVE:
        found, verdict = compare_windows(table, _windows(plan, layers, located), len(plan.pairs))
        smallest = found
    elif located is None or located.kind is Kind.NO_EFFECT:
        found = smallest = LayerSet((), len(layers))
        table.ask([table.whole])
    else:
        found, smallest = located.layers, located.smallest
        table.ask(_shown(located))
    return SearchResult(
        plan=plan,
        layers=found,
        smallest=smallest,
        located=located,
        verdict=verdict,
        table=table,
        cells=tuple(evaluation.cells),
        scores=np.array(evaluation.scores),
        thumbnails=tuple(evaluation.thumbnails),
        warnings=warnings,
    )


def _windows(plan: SearchPlan, layers: ModelLayers, located: Localization | None) -> list[LayerSet]:
    """The windows to compare in images: of the size asked for, that the probe found, or usual in the family."""
    probed = located is not None and located.kind is Kind.LOCALIZED
    size = len(located.layers) if located and probed else first_size(layers, plan.window_size)
    return windows(len(layers), size)


def check_scorer(scorer: Scorer | None, effort: Effort) -> None:
    """An error where one is needed and missing."""
    if scorer is None and effort is Effort.EXHAUSTIVE:
        raise ValueError(
            f"scorer: missing; effort {Effort.EXHAUSTIVE} compares windows by their images' scores: give a scorer, or "
            f"effort {Effort.PROBE}"
        )


def compare_windows(table: ScoreTable, tried: list[LayerSet], pairs: int) -> tuple[LayerSet, Verdict]:
    """The window with the greatest effect in images, of all windows; none where the images do not show the concept."""
    table.ask([table.whole])
    if not shows(table, pairs):
        return LayerSet((), table.layer_count), Verdict(Kind.NO_EFFECT, estimate(table.effects(table.whole), pairs))
    table.ask(tried)
    best = max(tried, key=lambda window: table.effects(window).mean())
    return best, judge(table, best, tried, pairs)


def _shown(located: Localization) -> list[LayerSet]:
    """The sets of layers whose images say whether the probe is right."""
    found, count = located.layers, located.layers.layer_count
    first, last = found.indices[0], found.indices[-1]
    beside = [range(start, start + last - first + 1) for start in (first - 1, first + 1)]
    moved = [LayerSet(tuple(ends), count) for ends in beside if ends.start >= 0 and ends.stop <= count]
    rival = [] if located.rival is None else [located.rival]
    everything = LayerSet(tuple(range(count)), count)
    return [everything, found, *moved, *rival, located.smallest]


def images_to_make(plan: SearchPlan, layers: ModelLayers) -> int:
    """How many images a search makes at most; about, where it is still to find the windows' size."""
    if plan.effort is Effort.EXHAUSTIVE:
        return (2 + len(windows(len(layers), first_size(layers, plan.window_size)))) * len(plan.images)
    return 7 * len(plan.images)
