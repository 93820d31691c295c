"""LoCo Edit Check on the demo model, whose styles are planted in layers 8-9."""

from __future__ import annotations

import comfy.model_management
import pytest
import torch

from loco_core.editing.check import edited_row
from loco_core.models.engine import Row, Sampling
from loco_core.models.layers import LayerSet

SMALL = {"width": 128, "height": 128, "cfg": 2.0}
KEPT = "a picture of a red star\na picture of a blue house\nhalftone"


@pytest.fixture(scope="module")
def check(execute, demo):
    """check(layers, ...) -> (report, removed, side effect) of an edit of woodcut."""

    def run(*layers: int, model=demo.model, **options):
        asked = {"concept": "woodcut", "target": "a painting", "preserve": KEPT, "attribute": "style"}
        edit, _ = execute("LoCo_EditSolve", clip=demo.clip, layers=LayerSet(layers, 16), **asked)
        return execute("LoCo_EditCheck", model=model, clip=demo.clip, edit=edit, **SMALL | options)

    return run


def test_an_edit_of_the_layers_that_hold_the_style_removes_it_and_keeps_the_rest(check):
    report, removed, side = check(8, 9)
    assert removed > 0.9 and side < 0.15
    assert report.startswith("gone: ") and "\nkept: " in report


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
