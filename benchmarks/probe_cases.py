"""Probes of models in which it is known where knowledge was planted, and of concepts with less effect than they have.

A concept is weakened by mixing its target's embedding with its own: at strength 0.3, layers get 0.7 of the concept's
and 0.3 of the target's.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from benchmarks.score_tables import ALL, FIRST_SEED, LAYERS, NARROW, QUICK_SAMPLING, concepts
from demo.jobs import GUIDANCE, SIZE, STEPS
from demo.training.plan import planting_of
from loco_core.choices import Choice
from loco_core.diffusers_host.demo_model import CHECKPOINT, DEMO, SCORER, demo_pipeline
from loco_core.diffusers_host.engine import DiffusersEngine
from loco_core.localization.localize import localize
from loco_core.localization.plan import ProbePlan, SearchPlan
from loco_core.localization.probe import Place, Probe, Prober, place_weights
from loco_core.localization.search import CONFIRMED_SHARE
from loco_core.localization.verdict import Kind
from loco_core.models.engine import Intervention, Row, Sampling
from loco_core.models.layers import LayerSet, windows
from loco_core.prompts import Attribute
from loco_core.scoring.clip_score import LEAST_EFFECT
from loco_core.scoring.open_clip_scorer import load_scorer

SAMPLING = Sampling(STEPS, GUIDANCE, "euler", "linspace", SIZE, SIZE)
ROWS = 36
STRENGTHS = tuple(round(0.1 * tenth, 1) for tenth in range(1, 11))


class Pooling(Choice):
    """How the levels of a probe are pooled."""

    WEIGHTED = "ratio of sums, weighted by the step"
    PLAIN = "ratio of sums"
    MEAN = "mean of ratios"


class Weakened(DiffusersEngine):
    """Where a row gives layers another embedding, they get that in part, and in part the row's own."""

    strength = 1.0

    def denoiser_output(self, scaled, timestep, rows, negative, sampling):
        return super().denoiser_output(scaled, timestep, [self._weakened(row) for row in rows], negative, sampling)

    def _weakened(self, row: Row) -> Row:
        if row.intervention is None:
            return row
        target = row.intervention.embedding
        mixed = replace(target, tokens=row.embedding.tokens.lerp(target.tokens, self.strength))
        return replace(row, intervention=replace(row.intervention, embedding=mixed))


@dataclass(frozen=True)
class Setting:
    """How many runs a probe takes, at how many levels, and about at how many places in all: 0 for every one."""

    runs: int
    levels: int
    most_places: int = 0


def setting_of(plan: ProbePlan) -> Setting:
    return Setting(len(plan.runs), plan.levels, plan.most_places)


class Excerpt:
    """A prober of some of the places of another, for `localize`: it takes from it what that has measured."""

    def __init__(
        self, prober: Prober, runs: Sequence[int], setting: Setting, pooling: Pooling = Pooling.WEIGHTED
    ) -> None:
        whole = prober.measure([])
        pairs = tuple(whole.plan.runs[run][0] for run in runs)
        self._prober, self._pooling = prober, pooling
        self._plan = replace(whole.plan, pairs=pairs, levels=setting.levels, most_places=setting.most_places)
        self._levels = [whole.plan.steps.index(step) for step in self._plan.steps]
        self._runs, self._grid = runs, np.ix_(runs, self._levels)
        left = np.multiply.reduceat(1 - whole.weights.sum(0), self._levels)
        self._weights = place_weights(self._plan, 1 - left)
        self._sets: set[LayerSet] = set()
        self._rows = self._plan.path_rows + 3 * self._places

    @property
    def _places(self) -> int:
        return int(np.count_nonzero(self._weights))

    def measure(self, sets: Iterable[LayerSet]) -> Probe:
        whole, asked = self._prober.measure(sets := list(sets)), set(sets)
        self._rows += len(asked - self._sets) * self._places
        self._sets |= asked
        measured = self._weights > 0
        cut = Probe(
            plan=self._plan,
            along={layers: whole.along[layers][self._grid] * measured for layers in self._sets},
            changed={layers: whole.changed[layers][self._grid] * measured for layers in self._sets},
            whole=whole.whole[self._grid] * measured,
            prompt=whole.prompt[self._grid] * measured,
            weights=self._weights,
            rows=self._rows,
        )
        return pooled(cut, self._pooling)

    @property
    def main_place(self) -> Place:
        probe = self.measure([])
        levels = probe.weights.sum(0)  # of a place counts its level's weight, however many runs share it
        run, level = np.unravel_index(np.argmax(probe.whole * levels), probe.whole.shape)
        return int(run), int(level)

    def shares_at(self, place: Place, sets: Sequence[LayerSet]) -> list[float]:
        run, level = place
        self._rows += len(sets)
        return self._prober.shares_at((self._runs[run], self._levels[level]), sets)


def pooled(probe: Probe, pooling: Pooling) -> Probe:
    """The same, with its levels pooled in another way."""
    if pooling is Pooling.WEIGHTED:
        return probe
    plain = replace(probe, weights=place_weights(probe.plan, np.ones(len(probe.plan.steps))))
    if pooling is Pooling.PLAIN:
        return plain
    whole = np.where(probe.whole, probe.whole, 1)
    return replace(
        plain,
        along={layers: along / whole for layers, along in probe.along.items()},
        changed={layers: changed / whole for layers, changed in probe.changed.items()},
        prompt=probe.prompt / whole,
        whole=np.ones_like(whole) * (probe.weights > 0),
    )


@dataclass(frozen=True)
class Task:
    """A concept to probe in the model of a folder, at a strength. measured: every run and level that the settings take
    places of; their levels divide its own.
    """

    folder: Path
    concept: str
    difficulty: str
    strength: float
    seed: int
    measured: Setting
    settings: tuple[Setting, ...]
    poolings: tuple[Pooling, ...] = (Pooling.WEIGHTED,)


@dataclass(frozen=True)
class Case:
    """What one probe says. right: whether that is what was planted; None where nothing was. right_of_size: whether the
    best of all windows as large as what was planted is that; None also where that is no window. margin: how far the
    share of the planted layers is ahead of that of the best window apart from them.
    """

    planting: str
    concept: str
    attribute: Attribute
    difficulty: str
    strength: float
    setting: Setting
    pooling: Pooling
    kind: Kind
    layers: LayerSet
    smallest: LayerSet
    share: float
    rival: LayerSet
    rival_share: float
    rows: int
    right: bool | None
    right_of_size: bool | None
    margin: float | None


def planted(folder: Path) -> dict[Attribute, LayerSet]:
    """The layers at which a folder's model knows styles and facts."""
    planting = planting_of(folder)
    return {
        Attribute.STYLE: LayerSet(planting.style, LAYERS),
        Attribute.FACT: LayerSet(planting.fact, LAYERS),
    }


@lru_cache(maxsize=1)
def engine_of(folder: Path) -> Weakened:
    return Weakened(demo_pipeline(folder / CHECKPOINT.relative_to(DEMO)))


def cases(task: Task) -> list[Case]:
    """Probes once, and reads off what each of the task's settings would have said, for all choices of runs."""
    attribute, pairs = concepts()[task.concept]
    engine, known = engine_of(task.folder), planted(task.folder).get(attribute)
    engine.strength = task.strength
    plan = ProbePlan(pairs[: task.measured.runs], (task.seed,), SAMPLING, task.measured.levels)
    prober = Prober(engine, plan, ROWS)
    adjacent = known and len(known) == known.indices[-1] - known.indices[0] + 1
    as_large = windows(LAYERS, len(known)) if adjacent else []
    asked = [*NARROW, *as_large, *([known] if known else [])]
    prober.measure(asked)
    made = []
    for setting, pooling in itertools.product(task.settings, task.poolings):
        for chosen in itertools.combinations(range(task.measured.runs), setting.runs):
            found = localize(Excerpt(prober, chosen, setting, pooling), engine.layers)
            right = right_of_size = margin = None
            if known:
                right = (found.layers if adjacent else found.smallest) == known
                probe = Excerpt(prober, chosen, setting, pooling).measure(asked)
                right_of_size = probe.best(as_large) == known if adjacent else None
                apart = [window for window in NARROW if not set(window) & set(known)]
                margin = probe.share(known) - probe.share(probe.best(apart))
            made.append(
                Case(
                    planting=task.folder.name,
                    concept=task.concept,
                    attribute=attribute,
                    difficulty=task.difficulty,
                    strength=task.strength,
                    setting=setting,
                    pooling=pooling,
                    kind=found.kind,
                    layers=found.layers,
                    smallest=found.smallest,
                    share=found.share,
                    rival=found.rival,
                    rival_share=found.probe.share(found.rival),
                    rows=found.probe.rows,
                    right=right,
                    right_of_size=right_of_size,
                    margin=margin,
                )
            )
    return made


@dataclass(frozen=True)
class Shown:
    """What the target changes in a model's images, in points of CLIP-Score: in all layers, in the planted ones, and in
    all but one of these, at most.
    """

    everywhere: float
    planted: float
    one_less: float

    @property
    def planted_there(self) -> bool:
        """Whether the images leave no doubt that the model knows the concept in the layers where it was planted, and in
        all of these: by the share that confirms a window, the planted ones are confirmed, and no fewer of them are. A
        short training may have made little use of one.
        """
        known = self.everywhere >= LEAST_EFFECT and self.planted >= CONFIRMED_SHARE * self.everywhere
        return known and self.one_less < CONFIRMED_SHARE * self.planted


def shown(folder: Path, concept: str) -> Shown:
    attribute, _ = concepts()[concept]
    layers = planted(folder)[attribute]
    fewer = [LayerSet(tuple(set(layers) - {one}), LAYERS) for one in layers] if len(layers) > 1 else []
    effects = image_effects(folder, concept, [(chosen, 1.0) for chosen in (ALL, layers, *fewer)]).round(2).tolist()
    return Shown(*effects[:2], one_less=max(effects[2:], default=0.0))


def effects_by_strength(concept: str) -> np.ndarray:
    """In images of the demo: what the target at the planted layers changes at each of STRENGTHS."""
    attribute, _ = concepts()[concept]
    return image_effects(DEMO, concept, [(planted(DEMO)[attribute], strength) for strength in STRENGTHS])


def image_effects(folder: Path, concept: str, changes: Sequence[tuple[LayerSet, float]]) -> np.ndarray:
    """What the target changes in images, in layers and at a strength: in points of CLIP-Score, positive as wanted."""
    attribute, pairs = concepts()[concept]
    engine, scorer = engine_of(folder), load_scorer(SCORER)
    embeddings = engine.encode([text for pair in pairs for text in (pair.concept, pair.target)])
    prompts = list(zip(embeddings[::2], embeddings[1::2], strict=True))
    plan = SearchPlan(pairs, (FIRST_SEED,), attribute, QUICK_SAMPLING)
    texts = [plan.scored_text(pair) for pair in pairs]

    def score(layers: LayerSet | None, strength: float) -> float:
        engine.strength = strength
        rows = [Row(own, FIRST_SEED, Intervention(layers, target) if layers else None) for own, target in prompts]
        return float(scorer.score(engine.generate(rows, QUICK_SAMPLING), texts).mean())

    unmodified = score(None, 1.0)
    return plan.sign * np.array([score(*change) - unmodified for change in changes])


def strength_for(scale: float, effects: np.ndarray) -> float:
    """The strength at which the effect is this share of the full one."""
    rising = np.maximum.accumulate(np.array([0.0, *effects]) / effects[-1])
    return round(float(np.interp(scale, rising, (0.0, *STRENGTHS))), 3)
