"""The pack in a real ComfyUI server, driven as a script or a browser would."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest
from PIL import Image

from demo.server import Server

ROOT = Path(__file__).resolve().parents[2]
FIND_STYLE = ROOT / "workflows" / "api" / "demo_find_style.json"
INJECT = ROOT / "workflows" / "api" / "demo_inject.json"
REMOVE_STYLE = ROOT / "workflows" / "api" / "demo_remove_style.json"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory):
    with Server(Path(os.environ["COMFYUI_PATH"]), tmp_path_factory.mktemp("comfyui")) as running:
        yield running


def quick(workflow: Path) -> dict:
    """The workflow with few and cheap images."""
    graph = json.loads(workflow.read_text(encoding="utf-8"))
    for node in graph.values():
        if node["class_type"] in ("KSampler", "LoCo_LayerSearch"):
            node["inputs"]["steps"] = 2
        if node["class_type"] == "LoCo_LayerSearch":
            node["inputs"]["seed_count"] = 1
    return graph


def test_the_nodes_are_known_to_the_server(server):
    known = server.get("/object_info")
    ours = {node_id for node_id in known if node_id.startswith("LoCo_")}
    assert {"LoCo_LayerSearch", "LoCo_EditApply", "LoCo_ConditioningInjector"} <= ours
    assert all(known[node_id]["category"] == "loco" for node_id in ours)


def test_finding_a_style_gives_a_plot_a_sheet_a_report_and_a_json(server):
    outputs = server.run(quick(FIND_STYLE))
    pictures = [server.images(outputs[node]["images"])[0] for node in ("5", "6")]
    assert all(min(Image.open(picture).size) > 300 for picture in pictures)
    assert "style: layers" in outputs["4"]["text"][0]
    assert len(outputs["3"]["images"]) == 2
    saved = json.loads(next((server.output / "loco").glob("search_*.json")).read_text())
    assert len(saved["scores"]) == 15


@pytest.mark.parametrize("workflow", [INJECT, REMOVE_STYLE])
def test_before_and_after_are_other_pictures_of_the_same_seeds(server, workflow):
    outputs = server.run(quick(workflow))
    groups = [server.images(node["images"]) for node in outputs.values() if len(node.get("images", [])) == 4]
    before, after = ([Image.open(file).tobytes() for file in group] for group in groups)
    assert all(one != other for one, other in zip(before, after, strict=True))


def test_the_help_pages_are_served(server):
    page = server.text("/extensions/ComfyUI-Loco/docs/LoCo_LayerSearch.md")
    assert page.startswith("# LocoGen Layer Search")


def test_the_same_graph_run_again_shows_its_text_again(server):
    graph = quick(INJECT)
    (select,) = (key for key, node in graph.items() if node["class_type"] == "LoCo_LayerSelect")
    first, second = (server.run(graph)[select]["text"] for _ in range(2))
    assert first == second == ["layers 8-9: u1.0, u2.0"]


def test_a_mistake_reaches_the_user_as_a_sentence(server):
    graph = quick(FIND_STYLE)
    graph["3"]["inputs"]["target_prompts"] = "one\ntwo"
    with pytest.raises(RuntimeError, match="concept prompts: 4 lines, target prompts: 2 lines"):
        server.run(graph)


def test_cancel_stops_a_search_within_a_step_and_the_server_goes_on(server):
    graph = quick(FIND_STYLE)
    graph["3"]["inputs"] |= {"steps": 1000, "seed": 77}
    prompt_id = server.queue(graph)
    deadline = time.monotonic() + 60
    while not server.get("/queue")["queue_running"] and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(3)
    server.post("/interrupt", {})
    cancelled = time.monotonic()
    entry = server.wait(prompt_id)
    assert time.monotonic() - cancelled < 5  # one step of 32 images takes about half a second on two cores
    assert any(kind == "execution_interrupted" for kind, _ in entry["status"]["messages"])
    assert server.run(quick(FIND_STYLE))


@pytest.mark.parametrize("name", ["demo_find_style", "demo_inject", "demo_remove_style"])
def test_the_canvas_workflow_and_the_api_workflow_are_the_same_graph(server, name):
    canvas = json.loads((ROOT / "workflows" / f"{name}.json").read_text(encoding="utf-8"))
    api = json.loads((ROOT / "workflows" / "api" / f"{name}.json").read_text(encoding="utf-8"))
    links = {link[0]: [str(link[1]), link[2]] for link in canvas["links"]}
    nodes = {str(node["id"]): node for node in canvas["nodes"] if node["type"] != "MarkdownNote"}
    assert nodes.keys() == api.keys()
    for key, node in nodes.items():
        assert node["type"] == api[key]["class_type"]
        inputs, values = {}, iter(node["widgets_values"])
        for socket in node["inputs"]:
            if "widget" in socket:
                inputs[socket["name"]] = next(values)
                if socket["name"] == "seed":
                    assert next(values) == "fixed"
            elif socket["link"] is not None:
                inputs[socket["name"]] = links[socket["link"]]
        assert inputs == api[key]["inputs"]
