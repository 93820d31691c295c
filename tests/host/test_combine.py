"""Edits that are combined need one text encoder: told by what it gives, not by the name of its class."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from loco_core.editing.file import load_edit, save_edit
from loco_core.editing.solve import Edit, solve_edit
from made_up import recipe


def altered(host, change):
    """The demo model's CLIP, loaded anew, with each of its matrices changed."""
    clip = host.nodes.CheckpointLoaderSimple().load_checkpoint("loco_demo.safetensors")[1]
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in clip.cond_stage_model.parameters():
            if weight.ndim > 1:
                weight.copy_(change(weight, torch.randn(weight.shape, generator=generator) * weight.std()))
    return clip


def patched(demo):
    """The CLIP with a patch on its weights, as a LoRA loader leaves it."""
    clip = demo.clip.clone()
    name, weight = next((n, w) for n, w in clip.patcher.model.named_parameters() if n.endswith("fc1.weight"))
    clip.add_patches({name: (weight.detach().clone(),)}, 2.0)
    return clip


@pytest.fixture(scope="module")
def solved(pack, encoder, demo):
    """solved(concept, clip) -> the edit, solved with this CLIP."""
    name = pack("nodes.host.text_encoder").text_encoder

    def run(concept: str, clip=demo.clip) -> Edit:
        return solve_edit(encoder(clip), replace(recipe([concept]), text_encoder=name(clip)))

    return run


@pytest.fixture(scope="module")
def by_diffusers() -> Edit:
    pytest.importorskip("diffusers")
    from loco_core.diffusers_host.demo_model import demo_pipeline
    from loco_core.diffusers_host.engine import DiffusersEngine

    engine = DiffusersEngine(demo_pipeline())
    return solve_edit(engine.encode, replace(recipe(["halftone"]), text_encoder=engine.text_encoder))


def test_an_edit_of_the_command_line_goes_with_one_of_the_same_encoder_in_comfyui(execute, demo, solved, by_diffusers):
    assert by_diffusers.recipe.text_encoder != solved("woodcut").recipe.text_encoder
    joint, report = execute("LoCo_EditCombine", clip=demo.clip, edit_1=solved("woodcut"), edit_2=by_diffusers)
    assert {pair.concept for pair in joint.recipe.pairs} == {"woodcut", "halftone"}
    assert "text encoder: DemoClip" in report


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_a_checkpoint_in_half_precision_has_the_same_encoder(execute, host, demo, solved, kind):
    rounded = altered(host, lambda weight, noise: weight.to(kind))
    execute("LoCo_EditCombine", clip=demo.clip, edit_1=solved("woodcut"), edit_2=solved("halftone", rounded))


@pytest.mark.parametrize("what", ["another checkpoint", "a fine-tune", "a LoRA", "another clip skip"])
def test_another_encoder_of_the_same_class_is_refused(execute, host, demo, solved, what):
    clips = {
        "another checkpoint": lambda: altered(host, lambda weight, noise: noise),
        "a fine-tune": lambda: altered(host, lambda weight, noise: weight + 0.2 * noise),
        "a LoRA": lambda: patched(demo),
        "another clip skip": lambda: host.nodes.CLIPSetLastLayer().set_last_layer(demo.clip, -2)[0],
    }
    other = clips[what]()
    assert type(other.cond_stage_model) is type(demo.clip.cond_stage_model)
    message = r"clip: it is DemoClip.*; the edit of 'halftone' was solved with another text encoder.*differs by [0-9]+%"
    with pytest.raises(ValueError, match=message):
        execute("LoCo_EditCombine", clip=demo.clip, edit_1=solved("woodcut"), edit_2=solved("halftone", other))


def test_all_edits_may_be_of_another_encoder_than_the_demo_models_if_the_clip_is_that_one(execute, demo, solved):
    other = patched(demo)
    execute("LoCo_EditCombine", clip=other, edit_1=solved("woodcut", other), edit_2=solved("halftone", other))


def test_a_loaded_edit_tells_its_encoder_too(execute, demo, solved, tmp_path):
    save_edit(solved("halftone", patched(demo)), tmp_path / "edit.safetensors", {})
    loaded = load_edit(tmp_path / "edit.safetensors")
    with pytest.raises(ValueError, match="clip: .* another text encoder"):
        execute("LoCo_EditCombine", clip=demo.clip, edit_1=solved("woodcut"), edit_2=loaded)


@pytest.mark.parametrize(("name", "fits"), [("DemoClip, last layer as the model's default", True), ("T5", False)])
def test_an_edit_saved_without_the_encoders_numbers_goes_by_its_name(execute, demo, solved, name, fits):
    edit = solved("halftone")
    old = replace(edit, recipe=replace(edit.recipe, fingerprint=(), text_encoder=name))
    if fits:
        execute("LoCo_EditCombine", clip=demo.clip, edit_1=solved("woodcut"), edit_2=old)
    else:
        with pytest.raises(ValueError, match=r"another text encoder \(T5\), which has another name"):
            execute("LoCo_EditCombine", clip=demo.clip, edit_1=solved("woodcut"), edit_2=old)


def test_combined_edits_are_checked_on_a_model(execute, demo, solved):
    edits = {"edit_1": solved("woodcut"), "edit_2": solved("halftone")}
    _, report = execute("LoCo_EditCombine", clip=demo.clip, model=demo.model, **edits)
    assert "of the concept is removed" in report.splitlines()[0]
