"""The main path in a real ComfyUI server, in less than a minute: what must never be broken."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from benchmarks.modes import modes_difference
from demo.server import Server

ROOT = Path(__file__).resolve().parents[2]
# In one process, so that one server serves all.
pytestmark = pytest.mark.xdist_group("smoke")

HELP_PAGES = ROOT / "web" / "docs"
FIND_STYLE = ROOT / "workflows" / "api" / "Demo 4 - Find the layers of a style.json"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory):
    with Server(Path(os.environ["COMFYUI_PATH"]), tmp_path_factory.mktemp("comfyui")) as running:
        yield running


def test_every_node_with_a_help_page_is_known_to_the_server_and_no_other(server):
    ours = {node_id: known for node_id, known in server.get("/object_info").items() if node_id.startswith("LoCo_")}
    assert sorted(ours) == sorted(page.stem for page in HELP_PAGES.glob("*.md"))
    categories = {known["category"] for known in ours.values()}
    assert categories == {
        "loco",
        *(f"loco/{name}" for name in ("find layers", "edit", "prompts", "neurons", "compare")),
    }
    assert [node_id for node_id, known in ours.items() if known["category"] == "loco"] == ["LoCo_Remove"]


def test_a_short_search_finds_the_layers_of_a_style(server):
    graph = json.loads(FIND_STYLE.read_text(encoding="utf-8"))
    (search,) = (key for key, node in graph.items() if node["class_type"] == "LoCo_LayerSearch")
    inputs = graph[search]["inputs"]
    for prompts in ("concept_prompts", "target_prompts"):
        inputs[prompts] = inputs[prompts].splitlines()[0]
    inputs |= {"seed_count": 1, "steps": 6}
    outputs = server.run(graph)
    assert any("style: layers 8-9" in text for node in outputs.values() for text in node.get("text", []))


def test_an_edit_as_a_weight_patch_as_context_and_as_a_lora_in_the_stock_loader_has_the_same_effect(server):
    difference, effect = modes_difference(server)
    assert effect >= 1e-2
    assert difference <= 1e-2  # the LoRA is float16
