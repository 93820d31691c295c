"""LoCo Remove a Concept on the demo model, whose styles are planted in layers 8-9 and whose flags in 6-7."""

from __future__ import annotations

import pytest
from comfy_execution.graph_utils import ExecutionBlocker

from loco_core.models.layers import LayerSet

KEPT = "a picture of a red star\na picture of a blue house\nhalftone"


@pytest.fixture(scope="module")
def remove(execute, demo):
    def run(concept: str, preserve: str = KEPT, **options):
        return execute("LoCo_Remove", model=demo.model, clip=demo.clip, concept=concept, preserve=preserve, **options)

    return run


def test_a_style_is_found_removed_and_checked_from_its_name_alone(remove, demo):
    model, report, layers, edit = remove("woodcut")
    assert layers == edit.recipe.layers == LayerSet((8, 9), 16)
    assert report.startswith("gone: ") and "where it is: localized: layers 8-9" in report
    assert len(model.patches) == 4 and not demo.model.patches  # keys and values of two layers


def test_what_the_model_does_not_know_is_not_edited_and_the_text_says_so(remove, demo):
    model, report, layers, edit = remove("xyzzy")
    assert model is demo.model
    assert report.startswith("NOTHING IS EDITED: ") and "no effect" in report
    assert isinstance(layers, ExecutionBlocker) and isinstance(edit, ExecutionBlocker)


@pytest.mark.parametrize("mode", ["weights", "context"])
def test_what_was_removed_before_is_said_to_be_so(execute, remove, demo, mode):
    _, _, _, edit = remove("woodcut")
    once, _ = execute("LoCo_EditApply", model=demo.model, edit=edit, mode=mode)
    _, report, *_ = execute("LoCo_Remove", model=once, clip=demo.clip, concept="woodcut")
    assert report.startswith("WARNING: a node before this one has edited the model")


def test_a_fact_becomes_the_target_in_the_layers_that_know_it(remove):
    others = "the flag of ombara\nthe flag of tulvane"
    _, report, layers, _ = remove("the flag of valdoria", others, target="the flag of kestria", attribute="fact")
    assert layers == LayerSet((6, 7), 16)
    assert report.startswith("gone: ")


def test_of_a_transformer_the_blocks_that_hold_a_style_read_each_prompt_without_it(execute, demo_transformer):
    model, clip = demo_transformer.model, demo_transformer.clip
    edited, report, layers, _ = execute("LoCo_Remove", model=model, clip=clip, concept="woodcut", preserve=KEPT)
    assert layers == LayerSet((6, 7), 12)
    assert report.startswith("gone: ") and "joint 6-7 read each prompt in the edited form" in report
    assert not edited.patches  # some blocks have no weights of their own for the prompt
    _, report, *_ = execute("LoCo_Remove", model=edited, clip=clip, concept="woodcut", preserve=KEPT)
    assert report.startswith("WARNING: a node before this one has edited the model")
