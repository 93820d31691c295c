"""Styles removed from the demo transformer with the nodes' defaults, as its judge sees images of held-out prompts."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from benchmarks.edit_bench import JUDGED, Task, held_out_sheet
from demo.jobs import Reading
from demo.judge import load_judge
from demo.world import STYLES
from loco_core.models.engine import Row
from loco_core.prompts import Attribute

pytestmark = pytest.mark.slow

STYLE = "woodcut"
PRESERVE = "\n".join(["a picture of a red star", "a picture of a blue fish", *(one for one in STYLES if one != STYLE)])
PICTURES = held_out_sheet(Task(Attribute.STYLE, (STYLE,))).pictures


@pytest.fixture(scope="module")
def read(engine_of, demo_transformer):
    """read(model) -> of every style and country, which of its images show what its prompts ask for."""
    judge, clip, vae = load_judge(), demo_transformer.clip, demo_transformer.vae

    @torch.inference_mode()
    def run(model) -> dict[str, Reading]:
        engine, readings = engine_of(model, clip, vae), {}
        for name, pictures in PICTURES.items():
            embeddings = engine.encode([picture.prompt for picture in pictures])
            rows = [Row(own, picture.seed) for own, picture in zip(embeddings, pictures, strict=True)]
            readings[name] = Reading(judge, pictures, engine.generate(rows, JUDGED).movedim(-1, 1))
        return readings

    return run


@pytest.mark.parametrize("where", ["the blocks that hold it", "all blocks"])
def test_the_style_is_gone_and_other_styles_objects_and_facts_are_kept(execute, demo_transformer, read, where):
    model, clip = demo_transformer.model, demo_transformer.clip
    asked = {"model": model, "clip": clip, "concept": STYLE, "preserve": PRESERVE}
    if where == "all blocks":
        layers, _ = execute("LoCo_LayerSelect", model=model, layers="all")
        edit, _ = execute("LoCo_EditSolve", layers=layers, **asked)
        edited, _ = execute("LoCo_EditApply", model=model, edit=edit)
        assert len(edited.patches) == 1  # the weight by which text comes in
    else:
        edited, *_ = execute("LoCo_Remove", **asked)
    before, after = read(model), read(edited)

    def kept(names: list[str], attribute: str) -> float:
        was = np.concatenate([before[name].correct(attribute) for name in names])
        return float(np.concatenate([after[name].correct(attribute) for name in names])[was].mean())

    others = [name for name in PICTURES if name != STYLE]
    assert kept([STYLE], "style") <= 0.1
    assert kept([STYLE], "object") >= 0.9
    assert kept([name for name in others if name in STYLES], "style") >= 0.9
    assert kept([name for name in others if name not in STYLES], "fact") >= 0.9
