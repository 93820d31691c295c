"""What an edit removes from the demo model's images and what it leaves, read by the judge."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from demo.jobs import Picture, Reading, style_edit, styled_pictures
from demo.judge import load_judge
from demo.world import STYLES
from loco_core.editing.recipe import EditRequest, EditSettings, edit_recipe
from loco_core.editing.solve import Edit, solve_edit
from loco_core.models.engine import Row, Sampling
from loco_core.models.layers import LayerSet
from loco_core.prompts import Attribute

pytestmark = pytest.mark.slow

SAMPLING = Sampling(10, 2.0, "euler", "normal", 128, 128)


@pytest.fixture(scope="module")
def removing(encoder, demo):
    """removing(styles) -> the edit that removes them at layers 8 and 9 and preserves what the demo preserves."""

    def solve(*styles: str) -> Edit:
        keep = [line for line in style_edit(styles[0]).preserve if line not in styles]
        request = EditRequest("\n".join(styles), "a painting", "\n".join(keep), Attribute.STYLE)
        recipe = edit_recipe(request, EditSettings(), LayerSet((8, 9), 16), "the demo's")
        return solve_edit(encoder(demo.clip), recipe)

    return solve


@pytest.fixture(scope="module")
def read(engine_of, demo):
    """read(model, pictures) -> what the judge reads in them."""
    judge = load_judge()

    @torch.no_grad()
    def run(model, pictures: list[Picture]) -> Reading:
        engine = engine_of(model, demo.clip, demo.vae)
        rows = [
            Row(embedding, picture.seed + copy)
            for picture, embedding in zip(pictures, engine.encode([p.prompt for p in pictures]), strict=True)
            for copy in range(picture.count)
        ]
        return Reading(judge, pictures, engine.generate(rows, SAMPLING).movedim(-1, 1))

    return run


def test_five_styles_are_removed_at_once_and_the_sixth_stays(apply_edit, demo, removing, read):
    five, sixth = list(STYLES)[:-1], list(STYLES)[-1]
    edited = apply_edit(demo.model, removing(*five))
    after = {style: read(edited, styled_pictures(style, 2, 1)) for style in STYLES}
    assert np.mean([after[style].share("style", style) for style in five]) <= 0.1
    assert after[sixth].right("style") >= 0.9  # 12 images: one may fail
    assert np.mean([reading.right("object") for reading in after.values()]) >= 0.97


@pytest.mark.parametrize("mode", ["weights", "context"])
def test_from_float8_weights_a_style_is_removed_in_both_modes(apply_edit, fp8, removing, read, mode):
    pictures = styled_pictures("pointillism", 2, 1)
    assert read(fp8, pictures).share("style", "pointillism") >= 0.9
    edited = apply_edit(fp8, removing("pointillism"), 1.0, mode)
    assert read(edited, pictures).share("style", "pointillism") <= 0.1


def test_from_weights_that_refuse_patches_a_style_is_removed_by_context(apply_edit, packed, removing, read):
    pictures = styled_pictures("pointillism", 2, 1)
    assert read(packed, pictures).share("style", "pointillism") >= 0.9
    edited = apply_edit(packed, removing("pointillism"), 1.0, "context")
    assert read(edited, pictures).share("style", "pointillism") <= 0.1
