"""Whether an edit does what it should, in what the denoiser predicts: no image is made, and no scorer is needed.

    checker = EditChecker(engine, check_plan(recipe, sampling, seed=0), rows_per_batch=16)
    print(check_report(checker.check(edit)))

At a noise level that an unmodified run passes, let D(c) be the denoised prediction of the conditional branch for a
prompt c, D'(c) that of the edited model, and d = D(c') - D(c) for the same words without the concept:

    removed(c) = <D'(c) - D(c), d> / <d, d>          1 where the concept is as good as not said
    side(p) = |D'(p) - D(p)| / |D - D("")|           of a prompt p that is to stay: 0 where it does

What a prompt does, |D - D("")|, is the root mean square over all that are to stay: so a prompt that says little to the
model counts little, however it changes. Concepts are asked in wordings that the edit was not solved on. Levels are
pooled as a probe's are. An edited layer is one that gets (I + A) c in place of c: so an edit is an intervention, and no
weight is touched.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from ..models.engine import Engine, Intervention, Row, Sampling
from ..noise_levels import NoiseLevels, OnRows, evenly
from ..prompt_text import quoted
from ..prompts import PromptPair
from ..report import Report, percent
from ..scoring.intervals import Estimate, estimate
from .closed_form import EditOperator
from .recipe import EditRecipe
from .solve import Edit
from .wordings import MOST_KEPT, MOST_WORDINGS, kept_wordings, spread, wordings

# Noise levels that a check looks at.
LEVELS = 2
# The sides of a pair.
SIDES = ("concept", "target")
# Steps of the runs to these levels: the levels need no finished image.
STEPS = 8
# From this share removed on, a concept is as good as gone...
GONE = 0.9
# ... and below this one it is still there.
STILL_THERE = 0.5
# Up to this share of what a prompt does, nobody sees the change.
LITTLE = 0.15


@dataclass(frozen=True)
class CheckPlan:
    """wordings: concepts in words that the edit was not solved on, each with the same words without the concept. kept:
    prompts that are to stay.
    """

    wordings: tuple[PromptPair, ...]
    kept: tuple[str, ...]
    sampling: Sampling
    seed: int = 0
    levels: int = LEVELS

    def __post_init__(self) -> None:
        if not self.wordings:
            raise ValueError("edit: nothing to check; it changes no concept into another")

    @property
    def steps(self) -> list[int]:
        """The steps before which is checked."""
        return evenly(self.levels, self.sampling.steps)

    @property
    def rows(self) -> int:
        """What a check of one edit takes, in rows of the denoiser."""
        prompts = len(self.wordings) + len(self.kept)
        path = prompts * max(self.steps) * self.sampling.rows_per_step
        return path + 3 * self.rows_per_edit

    @property
    def rows_per_edit(self) -> int:
        """What a check of one edit more takes."""
        return (len(self.wordings) + len(self.kept)) * len(self.steps)


def check_plan(recipe: EditRecipe, sampling: Sampling, seed: int) -> CheckPlan:
    """What tells most of an edit of this recipe: wordings that it was not solved on."""
    return CheckPlan(wordings(recipe), kept_wordings(recipe), _short(sampling), seed)


def prompts_plan(pairs: Sequence[PromptPair], kept: Sequence[str], sampling: Sampling, seed: int) -> CheckPlan:
    """Some of these prompts, as they are."""
    return CheckPlan(spread(pairs, MOST_WORDINGS), spread(kept, MOST_KEPT), _short(sampling), seed)


def _short(sampling: Sampling) -> Sampling:
    """Few steps, without guidance: so the runs are ordinary ones also for a model that was distilled to do without."""
    return replace(sampling, steps=STEPS, guidance=1.0)


@dataclass(frozen=True, eq=False)
class EditCheck:
    """removed: of each wording [wordings]. side: of each kept prompt [kept]. rows: of the denoiser, so far."""

    plan: CheckPlan
    removed: np.ndarray
    side: np.ndarray
    rows: int

    @property
    def mean_removed(self) -> Estimate:
        """With its interval over wordings."""
        return estimate(self.removed, len(self.removed))

    @property
    def removed_share(self) -> float:
        """In the mean; what goes too far in one wording does not make up for another."""
        return float(self.removed.clip(max=1).mean())

    @property
    def mean_side(self) -> Estimate:
        """With its interval over prompts."""
        return estimate(self.side, len(self.side))


class EditChecker:
    """Checks edits, one after the other: what they are compared with is predicted once."""

    def __init__(
        self, engine: Engine, plan: CheckPlan, rows_per_batch: int, on_rows: OnRows = lambda done: None
    ) -> None:
        self._engine, self._plan = engine, plan
        concepts, targets = (engine.encode([getattr(pair, side) for pair in plan.wordings]) for side in SIDES)
        *kept, empty = engine.encode([*plan.kept, ""])
        self._own = [Row(embedding, plan.seed) for embedding in (*concepts, *kept)]
        steps = [tuple(plan.steps)] * len(self._own)
        self._levels = NoiseLevels(engine, self._own, plan.sampling, steps, rows_per_batch, on_rows)
        said_otherwise = [
            Row(concept, plan.seed, Intervention(engine.layers.all, target))
            for concept, target in zip(concepts, targets, strict=True)
        ]
        self._unedited = self._predicted(self._own)
        self._differences = self._predicted([*said_otherwise, *[Row(empty, plan.seed)] * len(kept)]) - self._unedited

    def check(self, edit: Edit, strength: float = 1.0) -> EditCheck:
        """What this edit removes, and what else it changes."""
        return self._compared(self._predicted([edited_row(row, edit, strength) for row in self._own]))

    def check_model(self, changed: Engine) -> EditCheck:
        """The same of a model that was changed in any way."""
        return self._compared(self._predicted(self._own, changed))

    def _compared(self, predicted: torch.Tensor) -> EditCheck:
        """What these predictions [prompts, levels, C x h x w] make of the unedited ones."""
        changes = predicted - self._unedited
        count, weights = len(self._plan.wordings), torch.from_numpy(self._levels.weights)
        whole = self._differences.square().sum(2) @ weights
        along = (changes * self._differences).sum(2) @ weights
        changed = changes.square().sum(2) @ weights
        return EditCheck(
            plan=self._plan,
            removed=(along / whole)[:count].numpy(),
            side=(changed[count:] / whole[count:].mean()).sqrt().numpy(),
            rows=self._levels.rows,
        )

    def _predicted(self, rows: Sequence[Row], engine: Engine | None = None) -> torch.Tensor:
        """Of every prompt's row at every level: [prompts, levels, C x h x w] in float64."""
        asked = list(enumerate(rows))
        levels = range(len(self._plan.steps))
        return torch.stack([torch.stack(self._levels.predict(level, asked, engine)) for level in levels], 1)


def edited_row(row: Row, edit: Edit, strength: float) -> Row:
    """The row as the edited model takes it."""
    operators = set(edit.operators.values())
    if not operators or not strength:
        return row
    (operator,) = operators  # layers that get the same embedding share one
    own = row.embedding
    if edit.pooled is not None and own.pooled is not None:
        own = replace(own, pooled=changed(own.pooled, edit.pooled, strength))
    given = replace(own, tokens=changed(own.tokens, operator, strength))
    return replace(row, embedding=own, intervention=Intervention(edit.recipe.layers, given))


def changed(embedding: torch.Tensor, operator: EditOperator, strength: float) -> torch.Tensor:
    """(I + strength A) c for embeddings [..., d], in their dtype."""
    columns = embedding.reshape(-1, operator.width).T.double()
    return embedding + strength * operator.change(columns).T.reshape(embedding.shape).to(embedding)


@dataclass(frozen=True)
class Advice:
    """What a report of a check says of the change. asked: what its prompts are. more, less: what to do for a concept
    that is still there, and for the rest where it is not kept.
    """

    asked: str = "wordings that the edit was not solved on"
    more: str = "name it in other words too, one per line"
    less: str = "to change less, give the edit to LoCo Edit Apply, at a strength below 1"
    enough: str = "if pictures still show it, name it in other words too, one per line"


OF_EDIT = Advice()


def advice_for(recipe: EditRecipe) -> Advice:
    """What to do about an edit of this recipe."""
    return OF_EDIT if recipe.preserve else replace(OF_EDIT, less="write what must stay into 'preserve', one per line")


def check_report(check: EditCheck, advice: Advice = OF_EDIT) -> Report:
    """Whether the concept is gone and the rest is kept, then each prompt."""
    plan, removed, side = check.plan, check.mean_removed, check.mean_side
    said = "gone" if removed.mean >= GONE else "still there" if removed.mean < STILL_THERE else "partly gone"
    result = [f"{said}: {percent(min(removed.mean, 1))} of the concept is removed"]
    least = plan.wordings[int(check.removed.argmin())].concept
    figures = [
        f"removed {percent(removed.mean)}{_interval(removed)}, in {len(plan.wordings)} {advice.asked}; least, "
        f"{percent(check.removed.min())}, in {quoted(least)}"
    ]
    if plan.kept:
        most = quoted(plan.kept[int(check.side.argmax())])
        kept = side.mean <= LITTLE
        result[0] += f"; the rest is {'kept' if kept else 'NOT kept'}, it changes by {percent(side.mean)}"
        figures.append(
            f"prompts that are to stay change by {percent(side.mean)} of what prompts do{_interval(side, least=0.0)}; "
            f"most, {percent(check.side.max())}, {most}"
        )
        if not kept:
            result.append(f"what changes most is {most}: {advice.less}")
    result.append(advice.more if removed.mean < GONE else advice.enough)
    figures += [
        f"removed {percent(share)}: {own.concept}" for share, own in zip(check.removed, plan.wordings, strict=True)
    ]
    figures += [f"changed {percent(share)}: {prompt}" for share, prompt in zip(check.side, plan.kept, strict=True)]
    return Report(tuple(result), tuple(figures))


def _interval(share: Estimate, least: float = -np.inf) -> str:
    """`least`: what the share cannot be below."""
    low = max(share.low, least)
    return f" (95 % interval {percent(low)} to {percent(share.high)})" if share.images > 1 else ""
