"""Checks of edits by an engine whose prediction is what its layers make of the tokens that they get."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from loco_core.editing.check import (
    STEPS,
    CheckPlan,
    EditChecker,
    check_plan,
    check_report,
    edited_row,
    prompts_plan,
)
from loco_core.editing.recipe import Preservation
from loco_core.editing.solve import Edit, solve_edit
from loco_core.editing.wordings import MOST_WORDINGS
from loco_core.models.engine import Sampling
from loco_core.models.layers import LayerSet
from loco_core.prompts import PromptPair
from made_up import encode, recipe
from made_up_edits import Linear

SAMPLING = Sampling(20, 7.5, "euler", "normal", 32, 16)
PAIRS = (PromptPair("a cat in woodcut", "a cat"), PromptPair("a dog in woodcut", "a dog"))
PLAN = CheckPlan(PAIRS, ("a house",), SAMPLING)


def edit_of(*layers: int, **settings) -> Edit:
    """All tokens of the pairs above, almost without a ridge: where it acts, the concept becomes the target."""
    asked = {"tokens": "all subject tokens", "preservation": Preservation.NONE, "relative_ridge": 1e-4} | settings
    found = recipe([pair.concept for pair in PAIRS], "a cat", **asked)
    return solve_edit(encode, type(found)(PAIRS, (), found.settings, LayerSet(layers, 4), found.text_encoder))


def check(edit: Edit, strength: float = 1.0, engine: Linear | None = None):
    return EditChecker(engine or Linear(), PLAN, 5).check(edit, strength)


def test_an_edit_of_the_layers_that_hold_the_concept_removes_it():
    assert check(edit_of(1, 2, tokens="last subject token and tail")).removed == pytest.approx([1, 1], abs=0.3)


def test_an_edit_of_other_layers_removes_nothing_and_changes_nothing():
    found = check(edit_of(0, 3))
    assert not found.removed.any() and not found.side.any()


def test_strength_0_is_no_edit():
    found = check(edit_of(1, 2), strength=0.0)
    assert not found.removed.any() and not found.side.any()


def test_what_is_removed_grows_with_the_strength():
    """The prediction is linear in the tokens, so half the strength removes half."""
    whole, half = (check(edit_of(1, 2), strength).removed for strength in (1.0, 0.5))
    assert half == pytest.approx(whole / 2, abs=1e-6)  # the tokens are float32


def test_a_second_edit_costs_one_row_for_each_prompt_and_level():
    engine = Linear()
    checker = EditChecker(engine, PLAN, 100)
    first = checker.check(edit_of(1, 2)).rows
    assert first == PLAN.rows
    assert checker.check(edit_of(1)).rows - first == 3 * PLAN.levels


def test_the_plan_of_a_recipe_needs_few_steps():
    plan = check_plan(recipe(["woodcut"], preserve=["a house"]), SAMPLING, seed=3)
    assert (plan.sampling.steps, plan.seed, plan.steps) == (STEPS, 3, [0, STEPS // 2])
    assert plan.wordings and plan.kept


def test_an_edit_that_changes_no_concept_cannot_be_checked():
    with pytest.raises(ValueError, match="edit: nothing to check"):
        CheckPlan((), ("a house",), SAMPLING)


@pytest.mark.parametrize(("removed", "said"), [([1, 0.95], "gone"), ([0.9, 0.5], "partly"), ([0.1, 0], "still there")])
@pytest.mark.parametrize(("side", "kept"), [([0.1], "kept"), ([0.5], "NOT kept")])
def test_the_report_says_whether_the_concept_is_gone_and_what_else_changed(removed, said, side, kept):
    found = check(edit_of(1, 2))
    report = check_report(replace(found, removed=np.array(removed), side=np.array(side)))
    first, *advice = report.result
    assert first.startswith(said) and first.endswith(f"; the rest is {kept}, it changes by {side[0]:.0%}")
    assert len(advice) == 1 + (kept == "NOT kept") and "name it in other words" in advice[-1]
    assert report.figures[2:] == (
        *(f"removed {share:.0%}: {pair.concept}" for share, pair in zip(removed, PAIRS, strict=True)),
        f"changed {side[0]:.0%}: a house",
    )


def test_a_model_that_was_changed_is_checked_as_the_edit_that_changed_it():
    edit, engine = edit_of(1, 2), Linear()
    checker = EditChecker(engine, PLAN, 5)
    by_edit, by_model = checker.check(edit), checker.check_model(Edited(edit))
    np.testing.assert_allclose(by_model.removed, by_edit.removed, atol=1e-6)  # the tokens are float32
    np.testing.assert_allclose(by_model.side, by_edit.side, atol=1e-6)


class Edited(Linear):
    """The model with the edit in it."""

    def __init__(self, edit: Edit) -> None:
        super().__init__()
        self._edit = edit

    def predict(self, rows, latents, sampling, step):
        return super().predict([edited_row(row, self._edit, 1.0) for row in rows], latents, sampling, step)


def test_of_a_users_own_prompts_some_are_checked_as_they_are():
    pairs = tuple(PromptPair(f"a cat in woodcut {number}", "a cat") for number in range(20))
    plan = prompts_plan(pairs, (), SAMPLING, seed=1)
    assert set(plan.wordings) <= set(pairs) and len(plan.wordings) == MOST_WORDINGS
    assert check_report(EditChecker(Linear(), plan, 5).check(edit_of(0))).brief.startswith("still there: 0%")
