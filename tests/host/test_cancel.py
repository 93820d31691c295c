"""Cancel outside the sampler: answered within a second, and raised as the host expects it."""

from __future__ import annotations

import threading
import time

import comfy.model_management
import pytest
import torch

from loco_core.models.layers import LayerSet


@pytest.fixture
def cancelled_after():
    """cancelled_after(seconds, work): presses Cancel while `work` runs; the seconds until it gave up."""

    def run(seconds: float, work) -> float:
        pressed = []

        def press() -> None:
            pressed.append(time.monotonic())
            comfy.model_management.interrupt_current_processing(True)

        timer = threading.Timer(seconds, press)
        timer.start()
        try:
            with pytest.raises(comfy.model_management.InterruptProcessingException):
                work()
        finally:
            timer.cancel()
            comfy.model_management.interrupt_current_processing(False)
        return time.monotonic() - pressed[0]

    return run


def test_while_the_scorer_reads_images(host, cancelled_after):
    node = host.nodes.NODE_CLASS_MAPPINGS["LoCo_CLIPScorer"]
    scorer = node.execute("loco_demo_clip.safetensors", "from the file", False).result[0]
    images, texts = torch.rand(16, 128, 128, 3), ["a red star"] * 16

    def score_for_a_minute() -> None:
        until = time.monotonic() + 60
        while time.monotonic() < until:
            scorer.score(images, texts)

    assert cancelled_after(0.5, score_for_a_minute) < 1


def test_while_an_edit_encodes_its_prompts(host, demo, cancelled_after):
    node = host.nodes.NODE_CLASS_MAPPINGS["LoCo_EditSolve"].PREPARE_CLASS_CLONE(None)
    layers = LayerSet((8, 9), 16)
    styles = "\n".join(f"style number {number}" for number in range(5000))
    sockets = {s.id: s.default for s in node.GET_SCHEMA().inputs if getattr(s, "default", None) is not None}
    asked = sockets | {"model": demo.model, "clip": demo.clip, "layers": layers, "concept": styles}
    assert cancelled_after(0.5, lambda: node.execute(**asked)) < 1
