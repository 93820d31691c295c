"""LoCo Edit Check on the demo model, whose styles are planted in layers 8-9."""

from __future__ import annotations

import comfy.model_management
import pytest
import torch
from comfy_execution.graph_utils import ExecutionBlocker

from loco_core.editing.check import edited_row
from loco_core.models.engine import Row, Sampling
from loco_core.models.layers import LayerSet

KEPT = "a picture of a red star\na picture of a blue house\nhalftone"


@pytest.fixture(scope="module")
def check(execute, demo):
    """check(layers, ...) -> (report, removed, side effect) of an edit of woodcut."""

    def run(*layers: int, model=demo.model, **options):
        asked = {"concept": "woodcut", "target": "a painting", "preserve": KEPT, "attribute": "style"}
        edit, _ = execute("LoCo_EditSolve", clip=demo.clip, layers=LayerSet(layers, 16), **asked)
        return execute("LoCo_EditCheck", model=model, clip=demo.clip, edit=edit, **options)

    return run


def test_an_edit_of_the_layers_that_hold_the_style_removes_it_and_keeps_the_rest(check):
    report, removed, side = check(8, 9)
    assert removed > 0.9 and side < 0.15
    assert report.startswith("gone: ") and "; the rest is kept" in report


def test_an_edit_of_other_layers_leaves_the_style_there(check):
    report, removed, _ = check(2, 3)
    assert removed < 0.1
    assert report.startswith("still there: ")


def test_an_edit_is_checked_as_the_intervention_that_predicts_what_the_edited_weights_do(execute, demo, engine_of):
    asked = {"concept": "woodcut", "target": "a painting", "preserve": KEPT, "attribute": "style"}
    edit, _ = execute("LoCo_EditSolve", clip=demo.clip, layers=LayerSet((8, 9), 16), **asked)
    edited, _ = execute("LoCo_EditApply", model=demo.model, edit=edit)
    unedited, by_weights = (engine_of(model, demo.clip) for model in (demo.model, edited))
    row, sampling = Row(unedited.encode(["a star, woodcut"])[0], 0), Sampling(4, 2.0, "euler", "normal", 128, 128)
    latents = unedited.latents_at([row], sampling, [1])[:, 0]
    changed, other = (unedited.predict([one], latents, sampling, 1) for one in (edited_row(row, edit, 1.0), row))
    expected = by_weights.predict([row], latents, sampling, 1)
    assert torch.linalg.norm(changed - expected) < 1e-3 * torch.linalg.norm(expected - other)  # both in float32


@pytest.fixture(scope="module")
def solve(execute, demo):
    """solve(layers, ...) -> (edit, report) of LoCo Edit Solve for woodcut, on the demo model; no layers: none."""

    def run(*layers: int, model=demo.model, **options):
        asked = {"concept": "woodcut", "target": "a painting", "preserve": KEPT, "attribute": "style"} | options
        asked |= {"layers": LayerSet(layers, 16)} if layers else {}
        return execute("LoCo_EditSolve", model=model, clip=demo.clip, **asked)

    return run


@pytest.fixture
def counted(demo):
    """A clone of the demo model, and the calls of its denoiser."""
    model, calls = demo.model.clone(), []

    def denoise(apply_model, call):
        calls.append(1)
        return apply_model(call["input"], call["timestep"], **call["c"])

    model.set_model_unet_function_wrapper(denoise)
    return model, calls


def test_the_settings_of_an_edit_are_measured_on_the_model_that_it_is_for(solve):
    _, report = solve(8, 9)
    verdict, *lines = report.splitlines()
    assert verdict.startswith("gone: ") and "; the rest is kept" in verdict
    assert any(line.startswith("settings measured on this model: tokens '") for line in lines)


def test_layers_that_cannot_remove_the_concept_are_told_and_more_are_edited(solve):
    edit, report = solve(2)
    assert "\ngone: " in report
    assert "WARNING: an edit of layer 2 alone removes 0% of it" in report
    assert edit.recipe.layers.indices == tuple(range(16))


def test_by_hand_the_settings_are_those_given_and_the_edit_is_checked_all_the_same(solve):
    edit, report = solve(2, 3, settings="by hand", relative_ridge=0.5)
    assert "\nstill there: " in report and "settings measured" not in report
    assert edit.recipe.layers.indices == (2, 3) and edit.recipe.settings.relative_ridge == 0.5


def test_layers_that_are_not_connected_are_looked_for(solve):
    edit, report = solve()
    assert report.startswith("gone: ") and "where it is: localized: layers 8-9" in report
    assert edit.recipe.layers.indices == (8, 9)


def test_what_the_model_does_not_know_is_not_edited(solve):
    edit, report = solve(concept="xyzzy")
    assert report.startswith("NOTHING IS EDITED: write the concept as your prompts say it")
    assert isinstance(edit, ExecutionBlocker)


def test_at_given_layers_too_a_concept_that_the_model_does_not_know_is_told_first(solve):
    _, report = solve(8, 9, concept="xyzzy")
    assert report.startswith("WARNING: the model hardly knows the concept: look at its spelling")


def test_given_layers_that_do_not_hold_the_concept_are_told_first(solve):
    _, report = solve(2, 3, settings="by hand")
    first, *_ = report.splitlines()
    assert first.startswith("WARNING: layers 2-3 make ") and first.endswith("and those that make it are measured")


def test_layers_of_another_model_are_refused_before_anything_is_measured(execute, demo, counted):
    model, calls = counted
    with pytest.raises(ValueError, match="layers: chosen for a model with 70 layers; this model has 16"):
        execute("LoCo_EditSolve", model=model, clip=demo.clip, layers=LayerSet((45,), 70), concept="woodcut")
    assert not calls


def test_the_same_question_again_takes_no_time(solve, counted):
    model, calls = counted
    _, first = solve(8, 9, model=model)
    asked = len(calls)
    assert asked
    assert solve(8, 9, model=model)[1] == first
    assert len(calls) == asked
    solve(8, 9, model=model, concept="halftone", preserve="a picture of a red star")
    assert len(calls) > asked


def test_cancel_ends_it_within_one_call_of_the_denoiser(check, demo):
    model, calls = demo.model.clone(), []

    def denoise(apply_model, call):
        calls.append(1)
        if len(calls) == 2:
            comfy.model_management.interrupt_current_processing()
        return apply_model(call["input"], call["timestep"], **call["c"])

    model.set_model_unet_function_wrapper(denoise)
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        check(8, 9, model=model)
    assert len(calls) == 2
