"""Settings of an edit, tried on a made-up model whose layers 1 and 2 hold every concept."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from loco_core.editing.calibrate import MOST_PAIRS, WANTED, Calibration, Trial, calibrate, calibration_rows
from loco_core.editing.check import EditCheck, check_plan
from loco_core.editing.recipe import EditRecipe, EditRequest, EditSettings, Preservation, Tokens, edit_recipe
from loco_core.editing.report import calibration_report
from loco_core.models.engine import Sampling
from loco_core.models.layers import LayerSet
from loco_core.prompts import Attribute
from made_up_edits import Linear, encode_words

SAMPLING = Sampling(20, 7.5, "euler", "normal", 32, 16)
HOLDING = LayerSet((1, 2), 4)


def asked(concepts: str = "woodcut", preserve: str = "halftone", layers: LayerSet = HOLDING, **settings) -> EditRecipe:
    request = EditRequest(concepts, "a painting", preserve, Attribute.STYLE)
    return edit_recipe(request, EditSettings(**settings), layers, "a text encoder")


def calibrated(recipe: EditRecipe, **options) -> Calibration:
    return calibrate(Linear(encode_words), recipe, SAMPLING, 0, 16, **options)


def test_what_is_chosen_removes_enough_and_nothing_that_was_tried_is_surely_better():
    found = calibrated(asked())
    chosen, *others = found.trials
    assert chosen.enough and chosen.check is found.check and chosen.recipe.settings == found.edit.recipe.settings
    assert not any(trial.surely_better(chosen) for trial in others)


def test_other_tokens_are_taken_where_those_given_do_not_remove_the_concept():
    given = asked(tokens=Tokens.LAST_SUBJECT)
    found = calibrated(given)
    as_given = next(trial for trial in found.trials if trial.recipe == given)
    assert as_given.check.removed_share < WANTED <= found.check.removed_share
    assert found.edit.recipe.settings.tokens is not Tokens.LAST_SUBJECT


def test_the_settings_given_stay_where_no_others_are_measurably_better():
    best = calibrated(asked()).edit.recipe.settings
    assert calibrated(asked(**vars(best))).edit.recipe.settings == best


EVERYWHERE = LayerSet((0, 1, 2, 3), 4)


def trial(removed: list[float], side: list[float], layers: LayerSet = HOLDING) -> Trial:
    recipe = asked(layers=layers)
    return Trial(recipe, EditCheck(check_plan(recipe, SAMPLING, 0), np.array(removed), np.array(side), 0))


def test_others_take_its_place_only_where_they_surely_have_less_side_effect():
    best = trial([1, 1], [0.03, 0.05, 0.07])
    assert trial([1, 1], [0.01, 0.03, 0.06]).surely_better(best)
    assert not trial([1, 1], [0.01, 0.06, 0.03]).surely_better(best)  # as much less, but by chance
    assert not trial([1, 1], [0.029, 0.049, 0.069]).surely_better(best)  # surely, and too little to count
    assert not trial([0.86, 0.9, 0.96], [0.01, 0.03, 0.06]).surely_better(best)  # gone by chance


def test_what_leaves_the_concept_in_one_wording_is_not_enough():
    whole, partly = trial([0.95] * 9, [0.05] * 3), trial([1.0] * 8 + [0.5], [0.01] * 3)
    assert partly.check.removed_share >= WANTED
    assert not partly.surely_better(whole) and whole.surely_better(partly)


def test_more_layers_are_edited_where_those_given_cannot_remove_the_concept():
    found = calibrated(asked(layers=LayerSet((3,), 4)))
    assert found.edit.recipe.layers == LayerSet((0, 1, 2, 3), 4)
    assert calibration_report(found).brief.startswith(
        "WARNING: an edit of layer 3 alone removes 0% of it, with a side effect of 0.0%"
    )


def test_more_layers_are_not_edited_for_little_more_nor_where_they_change_the_rest():
    located = trial([0.85] * 4, [0.02] * 3)
    assert trial([1.0] * 4, [0.1] * 3, EVERYWHERE).surely_better(located)
    assert not trial([0.92] * 4, [0.02] * 3, EVERYWHERE).surely_better(located)
    assert not trial([1.0] * 4, [0.2] * 3, EVERYWHERE).surely_better(located)


def test_the_report_says_what_more_layers_would_remove_and_at_what_price():
    found = calibrated(asked())
    located, everywhere = trial([0.85] * 4, [0.02] * 3), trial([0.92] * 4, [0.04] * 3, EVERYWHERE)
    told = calibration_report(replace(found, trials=(located, everywhere)))
    assert told.brief.startswith(
        "WARNING: an edit of layers 1-2 removes 85% of the concept, and 85% in one wording; one of layers 0-3 would "
        "remove 92%, with a side effect of 4%"
    )


def test_where_nothing_removes_it_the_recipe_stays_as_it_was_and_the_report_says_so():
    given = asked(relative_ridge=1e6)  # it holds the weights where they are
    found = calibrated(given)
    assert found.edit.recipe.settings == given.settings and found.edit.recipe.layers == HOLDING
    assert calibration_report(found).brief.startswith("WARNING: the model may not know it by this name")


def test_settings_that_leave_no_room_are_passed_over():
    """Preserved exactly, the concept's own prompts leave nothing of their tails to edit."""
    given = asked(preservation=Preservation.EXACT)
    recipe = replace(given, preserve=tuple(f"{pair.concept}." for pair in given.pairs))
    tried = [trial.recipe.settings for trial in calibrated(recipe).trials]
    assert tried and recipe.settings not in tried


def test_an_edit_that_no_settings_make_possible_is_refused():
    recipe = replace(asked(), preserve=(asked().pairs[0].concept,))
    with pytest.raises(ValueError, match="is to be removed too"):
        calibrated(recipe)


def test_it_takes_no_more_rows_than_told_and_tells_them_all():
    recipe, told = asked(layers=LayerSet((3,), 4)), []
    found = calibrated(recipe, on_rows=told.append)
    assert found.rows == told[-1] <= calibration_rows(check_plan(recipe, SAMPLING, 0))


def test_few_of_many_concepts_are_tried_and_all_are_solved():
    recipe = asked("\n".join(f"{letter}{letter}ism" for letter in "abcdefghijklmnopqrstuvwxyz"))
    found = calibrated(recipe)
    assert len(recipe.pairs) > MOST_PAIRS
    assert found.edit.recipe.pairs == recipe.pairs
    assert all(len(trial.recipe.pairs) <= MOST_PAIRS for trial in found.trials)
    some = len(found.trials[0].recipe.pairs)
    assert calibration_report(found).figures[-1].endswith(f"; tried with {some} of {len(recipe.pairs)} prompts")


def test_the_report_names_what_was_chosen_what_came_next_and_what_it_took():
    lines = calibration_report(calibrated(asked())).figures
    assert lines[0].startswith("settings measured on this model: tokens '")
    assert [line.startswith("next best: layers 1-2, tokens '") for line in lines[1:3]] == [True, True]
    assert lines[-1].startswith("measured in ") and lines[-1].endswith(" images of 20 steps")
