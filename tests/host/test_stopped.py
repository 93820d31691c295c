"""Work that ends early says so on the node."""

from __future__ import annotations

from types import SimpleNamespace

import comfy.model_management
import numpy as np
import pytest
from server import PromptServer

NODE = "7"


@pytest.fixture
def said(monkeypatch) -> list[tuple[str, str]]:
    """The texts that a server sends, with the node that each is for."""
    texts: list[tuple[str, str]] = []
    server = SimpleNamespace(last_node_id=NODE, send_progress_text=lambda text, node_id: texts.append((node_id, text)))
    monkeypatch.setattr(PromptServer, "instance", server, raising=False)
    return texts


def test_a_mistake_is_told_on_the_node(host, demo, said):
    node = host.nodes.NODE_CLASS_MAPPINGS["LoCo_LayerSelect"].PREPARE_CLASS_CLONE(None)
    with pytest.raises(ValueError, match="layers: '99' does not exist") as mistake:
        node.execute(model=demo.model, layers="99", preset="as written")
    assert said == [(NODE, f"Stopped. {mistake.value}")]


def test_cancelled_work_tells_how_far_it_was(pack, said):
    progress = pack("nodes.host.progress")

    class Node:
        @classmethod
        def execute(cls) -> None:
            counted = progress.CountProgress(20, NODE, "probing the layers")
            counted(4)
            raise comfy.model_management.InterruptProcessingException

    with pytest.raises(comfy.model_management.InterruptProcessingException):
        pack("nodes.host.stopped").told_when_stopped(Node).execute()
    assert said[-1] == (NODE, "Stopped at 20%, probing the layers.")


def test_a_search_that_is_cancelled_tells_that_it_will_go_on(pack, said):
    bar = pack("nodes.host.progress").ImageProgress(20, 5, NODE, "20 images", "; Run goes on from here")
    assert pack("nodes.host.progress").place(NODE) == "0 of 20 images"  # there is nothing to go on from
    bar.on_batch(16, 20, "layers 8-9", np.zeros((8, 8, 3), np.uint8))
    assert pack("nodes.host.progress").place(NODE) == "16 of 20 images; Run goes on from here"


def test_how_far_an_earlier_run_was_is_forgotten(pack, said):
    progress = pack("nodes.host.progress")
    progress.CountProgress(20, NODE, "probing the layers")
    progress.begin(NODE)
    assert progress.place(NODE) == "the beginning"
