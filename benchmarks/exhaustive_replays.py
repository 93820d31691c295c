"""Exhaustive searches of the demo model, replayed on stored scores (score_tables.py), and their intervals' coverage."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.probe_cases import SAMPLING, planted
from benchmarks.score_tables import ALL, LAYERS, MANY, NARROW, QUICK, concepts, read_tables
from loco_core.diffusers_host.demo_model import DEMO
from loco_core.localization.plan import Effort, SearchPlan
from loco_core.localization.score_table import Evaluate, ScoreTable
from loco_core.localization.search import compare_windows
from loco_core.models.layers import LayerSet
from loco_core.scoring.intervals import estimate

PAIRS, SEEDS, SEARCHES = 4, 4, 450
ROWS = (1 + len(NARROW)) * PAIRS * SEEDS * SAMPLING.steps * SAMPLING.rows_per_step
COVERED, TIMES_LARGER, COVERAGE_DRAWS = (8, 16), 10, 1000


def plan_of(concept: str) -> SearchPlan:
    """A search of the default settings, with the images of an exhaustive one."""
    attribute, pairs = concepts()[concept]
    return SearchPlan(pairs[:PAIRS], tuple(range(SEEDS)), attribute, SAMPLING)


@dataclass(frozen=True)
class Replay:
    """One search: each window's mean effect, before it is scaled, and the mean of its noise in the images drawn."""

    planted: LayerSet
    effects: np.ndarray
    noise: np.ndarray

    def right(self, scale: float) -> bool:
        return NARROW[int((scale * self.effects + self.noise).argmax())] == self.planted


def replays(concept: str, random: np.random.Generator) -> list[Replay]:
    """Searches whose images are drawn from the stored ones: of every pair so many seeds."""
    attribute, _ = concepts()[concept]
    table = read_tables()[f"{concept}/{QUICK}"].astype(float)
    effects = plan_of(concept).sign * (table[1:-1] - table[0])  # [windows, pairs, seeds]; the last is all layers
    mean = effects.mean((1, 2))
    drawn = random.integers(0, effects.shape[2], (SEARCHES, 1, effects.shape[1], SEEDS))
    return [
        Replay(planted(DEMO)[attribute], mean, np.take_along_axis(effects, seeds, 2).mean((1, 2)) - mean)
        for seeds in drawn
    ]


def accuracy(searches: Sequence[Replay], scale: float) -> float:
    return float(np.mean([search.right(scale) for search in searches]))


def scale_for(searches: Sequence[Replay], share: float) -> float:
    """By what to multiply the effects for exhaustive search to be right in this share of cases."""
    low, high = 0.0, 1.0
    while accuracy(searches, high) < share and high < 64:
        high *= 2
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (low, middle) if accuracy(searches, middle) >= share else (middle, high)
    return high


def exhaustive_verdicts() -> dict[str, str]:
    """Of every concept as it is, by exhaustive search on the stored scores: the layers found and the verdict."""
    said = {}
    for name, (attribute, pairs) in concepts().items():
        scores = read_tables()[f"{name}/{QUICK}"]
        seeds = tuple(range(scores.shape[2]))
        plan = SearchPlan(pairs, seeds, attribute, SAMPLING, window_size=2, effort=Effort.EXHAUSTIVE)
        table = ScoreTable(stored(scores), len(plan.images), plan.sign, LAYERS)
        found, verdict = compare_windows(table, NARROW, len(pairs))
        where = f": layers {found}, {verdict.share:.0%} of all layers' effect" if found else ""
        said[name] = f"{verdict.kind}{where}"
    return said


def stored(scores: np.ndarray) -> Evaluate:
    """Scores [1 + windows, pairs, seeds] as a search asks for them."""
    place = {None: 0} | {window: 1 + i for i, window in enumerate((*NARROW, ALL))}
    in_turns = scores.swapaxes(1, 2).reshape(len(scores), -1)
    return lambda cells: np.array([in_turns[place[cell.window], cell.image] for cell in cells])


def coverage(random: np.random.Generator) -> dict[str, float]:
    """How often the interval from so many images holds the mean of TIMES_LARGER times as many others, by window."""
    held = {}
    for name, asked in MANY.items():
        table = read_tables()[f"{name}/many"].astype(float)
        pairs, seeds = table.shape[1:]
        for (place, window), images in itertools.product(enumerate(asked), COVERED):
            few = images // pairs
            effects = (table[1 + place] - table[0]).T  # [seeds, pairs]: in turns
            hits = []
            for _ in range(COVERAGE_DRAWS):
                order = random.permutation(seeds)
                small, large = effects[order[:few]], effects[order[few : few * (1 + TIMES_LARGER)]]
                interval = estimate(small.ravel(), pairs)
                hits.append(interval.low <= large.mean() <= interval.high)
            held[f"{name}, layers {window}, {images} images"] = round(float(np.mean(hits)), 4)
    return held
