"""What a node says while it works."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from loco_core.editing.solve import solve_edit
from made_up import recipe


@pytest.fixture
def said(pack, monkeypatch) -> list[str]:
    """The lines shown on the node."""
    lines: list[str] = []
    monkeypatch.setattr(pack("nodes.host.progress"), "show_text", lambda text, node_id: lines.append(text))
    return lines


def test_it_says_what_is_to_come_before_any_image_is_made(pack, said):
    pack("nodes.host.progress").ImageProgress(128, 20, None, "128 images")
    assert said == ["128 images"]


def test_after_the_first_batch_it_says_what_is_in_work_and_how_long(pack, said, monkeypatch):
    module = pack("nodes.host.progress")
    clock = iter([100.0, 130.0])
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    progress = module.ImageProgress(128, 20, None, "128 images")
    progress.on_batch(32, 128, "window 3 of 15 (layers 2-3)", np.zeros((8, 8, 3), np.uint8))
    assert said[-1] == "32 of 128 images, window 3 of 15 (layers 2-3), 2 min left"


@pytest.mark.parametrize(
    ("done", "recalled", "left"),
    [
        (100, 96, ", 4 min left"),  # 4 images took 30 s, 28 are to come
        (96, 64, ", 30 s left"),
        (96, 96, ""),  # nothing was made yet that tells how long an image takes
    ],
)
def test_the_time_left_is_told_by_what_this_run_has_made(pack, said, monkeypatch, done, recalled, left):
    module = pack("nodes.host.progress")
    clock = iter([100.0, 130.0])
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    progress = module.ImageProgress(128, 20, None, "128 images")
    progress.on_batch(done, 128, "layers 2-3", np.zeros((8, 8, 3), np.uint8), recalled)
    assert said[-1] == f"{done} of 128 images, layers 2-3{left}"


@pytest.mark.parametrize(("seconds", "words"), [(0, "0 s"), (89, "89 s"), (95, "2 min"), (3600, "1 h 0 min")])
def test_durations_are_said_as_people_say_them(pack, seconds, words):
    assert pack("nodes.host.progress").duration(seconds) == words


@pytest.mark.parametrize("node_id", ["LoCo_EditSolve", "LoCo_EditApply", "LoCo_EditExportLoRA", "LoCo_LayerSelect"])
def test_what_a_node_says_is_an_output_and_is_kept_in_the_hosts_history(host, demo, encoder, node_id):
    edit = solve_edit(encoder(demo.clip), recipe(["woodcut"]))
    given = {"model": demo.model, "clip": demo.clip, "edit": edit, "layers": edit.recipe.layers}
    node = host.nodes.NODE_CLASS_MAPPINGS[node_id].PREPARE_CLASS_CLONE(None)
    inputs = {
        socket.id: given.get(socket.id) if getattr(socket, "default", None) is None else socket.default
        for socket in node.GET_SCHEMA().inputs
    }
    with torch.inference_mode():
        made = node.execute(**inputs)
    assert made.ui["text"][0]  # of `ui` the host's history is made
    report = next(output for output in made.result if isinstance(output, str) and made.ui["text"][0] in output)
    assert report.split("\n\n")[0] == made.ui["text"][0]  # the figures stand in the output alone
