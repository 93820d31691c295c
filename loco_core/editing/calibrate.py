"""Settings of an edit, measured on the model that it is for.

    calibration = calibrate(engine, recipe, sampling, seed=0, rows_per_batch=16)
    edit, check = calibration.edit, calibration.check

Which tokens carry a concept, how firmly the rest must be preserved and at which ridge differs from model to model. So a
few settings are tried on the model at hand, and each is checked in what the denoiser predicts (check.py): first the
recipe's own, then other tokens, then preservation, then the ridge, each beside the best of what came before. Where
nothing removes enough of the concept, more layers are tried, and in the end all of them.

The rule: of what removes at least WANTED of the concept, the least side effect; where nothing does, what removes most.
More layers take the place of those given only where they remove a tenth more and leave the rest as a person sees it.
Others take the place of the best so far, which is at first what was given, only where they surely are better: few
wordings and few prompts are asked.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..choices import Choice
from ..models.engine import Engine, Sampling
from ..models.layers import LayerSet
from ..noise_levels import OnRows
from ..scoring.intervals import margin
from .check import GONE, LITTLE, CheckPlan, EditCheck, EditChecker, check_plan
from .recipe import EditRecipe, EditSettings, Preservation, Ridge, Tokens
from .solve import Edit, solve_edit
from .wordings import spread

# The share of a concept that an edit should remove in the mean, and in every wording.
WANTED, LEAST = GONE, 0.75
# What is tried of preservation, and of the ridge as parts of the best so far.
PRESERVATIONS: tuple[dict[str, Any], ...] = (
    {"preservation": Preservation.EXACT, "preserved_tolerance": 0.03},
    {"preservation": Preservation.EXACT, "preserved_tolerance": 0.1},
    {"preservation": Preservation.WEIGHTED},
)
RIDGES = (1, 1 / 3, 3)
# Edits that are checked at most: with more layers, and with all, the settings given and the best ones.
MOST_TRIALS = len(Tokens) + len(PRESERVATIONS) + len(RIDGES) - 1 + 2 * 2
# A side effect is less from this difference on; shares removed, where they are not enough, are rounded to that.
SIDE_STEP, REMOVED_STEP = 0.005, 0.1
# From this many concept prompts on, some concepts stand for all while settings are tried.
MOST_PAIRS, CONCEPTS_TRIED = 64, 4


class SettingsFrom(Choice):
    """Whether an edit's settings are measured on the model, beginning with those given, or taken as given."""

    AUTOMATIC = "automatic"
    BY_HAND = "by hand"


@dataclass(frozen=True, eq=False)
class Trial:
    """A recipe that was solved, and what it does to the model."""

    recipe: EditRecipe
    check: EditCheck

    @property
    def enough(self) -> bool:
        """Whether it removes what an edit should remove."""
        return bool(self.check.removed_share >= WANTED and self.check.removed.min() >= LEAST)

    @property
    def merit(self) -> tuple[bool, float]:
        """By what was measured; the greatest is the best."""
        return self.enough, -self.check.mean_side.mean if self.enough else self.check.removed_share

    def surely_better(self, other: Trial) -> bool:
        """By the rule."""
        if self.enough != other.enough:
            return self.enough and (self.recipe.layers == other.recipe.layers or self._worth_its_layers(other))
        if not self.enough:
            own, others = (round(one.check.removed_share / REMOVED_STEP) for one in (self, other))
            return own > others
        saved = margin(other.check.side, self.check.side, len(self.check.side))
        surely_less, surely_gone = not saved.low <= 0, not self.check.mean_removed.low < WANTED
        return saved.mean >= SIDE_STEP and surely_less and surely_gone  # of one prompt, how sure is not known

    def _worth_its_layers(self, other: Trial) -> bool:
        """Whether it removes that much more, and leaves the rest as a person sees it."""
        gained = self.check.removed_share - other.check.removed_share
        return gained >= REMOVED_STEP and self.check.mean_side.mean <= LITTLE


@dataclass(frozen=True, eq=False)
class Calibration:
    """given: the recipe as it was given. edit, check: of all its concepts, solved with the best settings. trials: the
    best first; where the concepts are many, of some of them. rows: of the denoiser, in all.
    """

    given: EditRecipe
    edit: Edit
    check: EditCheck
    trials: tuple[Trial, ...]
    rows: int


def calibration_rows(plan: CheckPlan) -> int:
    """What a calibration takes at most, in rows of the denoiser, where its concepts are few."""
    return plan.rows + (MOST_TRIALS - 1) * plan.rows_per_edit


def calibrate(
    engine: Engine,
    recipe: EditRecipe,
    sampling: Sampling,
    seed: int,
    rows_per_batch: int,
    on_rows: OnRows = lambda done: None,
) -> Calibration:
    """The recipe, solved with the best settings found; an error where it cannot be solved with any."""
    tried = _few_concepts(recipe)
    trials = _Trials(engine, EditChecker(engine, check_plan(tried, sampling, seed), rows_per_batch, on_rows))
    trials.attempt([tried])
    for variants in (_tokens, _preservations, _ridges):
        best = trials.ranked[0].recipe if trials.ranked else tried
        trials.attempt(replace(best, settings=settings) for settings in variants(best.settings))
    if not trials.ranked:
        raise trials.refusals[0]
    for layers in _more_layers(recipe.layers):
        best = trials.ranked[0].recipe
        if not trials.ranked[0].enough:
            trials.attempt(replace(own, layers=layers) for own in (tried, best))
    ranked, rows = trials.ranked, trials.rows
    if tried is recipe:
        return Calibration(recipe, trials.best_edit, ranked[0].check, ranked, rows)
    edit = _with_all_concepts(engine, recipe, ranked)
    plan = check_plan(edit.recipe, sampling, seed)
    check = EditChecker(engine, plan, rows_per_batch, lambda done: on_rows(rows + done)).check(edit)
    return Calibration(recipe, edit, check, ranked, rows + check.rows)


def _with_all_concepts(engine: Engine, recipe: EditRecipe, ranked: Sequence[Trial]) -> Edit:
    """The recipe solved with the best settings that leave room for all of its concepts."""
    refusals = []
    for tried in (trial.recipe for trial in ranked):
        try:
            return solve_edit(engine.encode, replace(recipe, settings=tried.settings, layers=tried.layers))
        except ValueError as error:
            refusals.append(error)
    raise refusals[0]


class _Trials:
    """Edits solved and checked one after the other, none of them twice. ranked: the best by the rule, then the others
    by what was measured; best_edit: the edit of the first.
    """

    def __init__(self, engine: Engine, checker: EditChecker) -> None:
        self._engine, self._checker = engine, checker
        self._asked: set[tuple[EditSettings, LayerSet]] = set()
        self.ranked: tuple[Trial, ...] = ()
        self.best_edit: Edit
        self.refusals: list[ValueError] = []
        self.rows = 0

    def attempt(self, recipes: Iterable[EditRecipe]) -> None:
        for recipe in recipes:
            asked = recipe.settings, recipe.layers
            if asked in self._asked:
                continue
            self._asked.add(asked)
            try:
                edit = solve_edit(self._engine.encode, recipe)
            except ValueError as error:  # there may be room for it with other settings
                self.refusals.append(error)
                continue
            trial = Trial(recipe, self._checker.check(edit))
            self.rows = trial.check.rows
            best, others = self.ranked[:1], [*self.ranked[1:], trial]
            if not best or trial.surely_better(best[0]):
                self.best_edit = edit
                best, others = (trial,), [*self.ranked]
            self.ranked = *best, *sorted(others, key=lambda one: one.merit, reverse=True)


def _few_concepts(recipe: EditRecipe) -> EditRecipe:
    """The recipe, or one of some of its concepts where they are many."""
    if len(recipe.pairs) <= MOST_PAIRS:
        return recipe
    named = spread(recipe.named, CONCEPTS_TRIED)
    pairs = [pair for pair in recipe.pairs if any(concept.name in pair.concept for concept in named)]
    return replace(recipe, pairs=spread(pairs or recipe.pairs, MOST_PAIRS), named=named)


def _tokens(settings: EditSettings) -> list[EditSettings]:
    return [replace(settings, tokens=tokens) for tokens in Tokens]


def _preservations(settings: EditSettings) -> list[EditSettings]:
    return [replace(settings, **preserved) for preserved in PRESERVATIONS]


def _ridges(settings: EditSettings) -> list[EditSettings]:
    return [replace(settings, ridge=Ridge.RELATIVE, relative_ridge=settings.relative_ridge * part) for part in RIDGES]


def _more_layers(layers: LayerSet) -> list[LayerSet]:
    """The same with their neighbours, and all."""
    count = layers.layer_count
    wider = {index + step for index in layers for step in (-1, 0, 1)} & set(range(count))
    return [LayerSet(tuple(wider), count), LayerSet(tuple(range(count)), count)]
