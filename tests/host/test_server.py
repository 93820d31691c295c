"""The pack in a real ComfyUI server, driven as a script or a browser would; test_smoke.py has the main path."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import quote

import pytest
from PIL import Image

from demo.server import Server

ROOT = Path(__file__).resolve().parents[2]
FIND_STYLE = ROOT / "workflows" / "api" / "Demo 4 - Find the layers of a style.json"
INJECT = ROOT / "workflows" / "api" / "Demo 5 - Two prompts in one picture.json"
SHARE_EDIT = ROOT / "workflows" / "api" / "Demo 6 - Share an edit.json"
REMOVE_STYLE = ROOT / "workflows" / "api" / "Demo 2 - Find and remove a style.json"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory):
    with Server(Path(os.environ["COMFYUI_PATH"]), tmp_path_factory.mktemp("comfyui")) as running:
        yield running


def quick(workflow: Path) -> dict:
    """The workflow with few and cheap images."""
    graph = json.loads(workflow.read_text(encoding="utf-8"))
    for node in graph.values():
        if node["class_type"] in ("KSampler", "LoCo_LayerSearch", "LoCo_ErasureReport"):
            node["inputs"]["steps"] = 2
        if node["class_type"] in ("LoCo_LayerSearch", "LoCo_ErasureReport"):
            node["inputs"]["seed_count"] = 1
    return graph


def quick_edit() -> dict:
    """The workflow that removes a style, with its layers given: nothing to search."""
    graph = quick(REMOVE_STYLE)
    (search,) = (key for key, node in graph.items() if node["class_type"] == "LoCo_LayerSearch")
    inputs = {"model": graph[search]["inputs"]["model"], "layers": "8-9", "preset": "as written"}
    graph[search] = {"class_type": "LoCo_LayerSelect", "inputs": inputs}
    return graph


def test_finding_a_style_gives_a_map_a_sheet_a_report_and_a_json(server):
    outputs = server.run(quick(FIND_STYLE))
    pictures = [server.images(outputs[node]["images"])[0] for node in ("5", "6")]
    assert all(min(Image.open(picture).size) > 300 for picture in pictures)
    assert "style: layers" in outputs["4"]["text"][0]
    assert len(outputs["3"]["images"]) == 2  # the model above its map, and the sheet
    saved = json.loads(next((server.output / "loco").glob("search_*.json")).read_text())
    assert len(saved["windows"]) == len(saved["shares"]) >= 15


def test_an_edit_is_checked_saved_and_exported_as_a_lora_that_the_stock_loader_offers(server):
    outputs = server.run(quick(SHARE_EDIT))
    texts = [text for node in outputs.values() for text in node.get("text", [])]
    assert any(text.startswith("layers 8-9 respond to") for text in texts)
    assert any("CLIP-Score against the prompts" in text for text in texts)
    (edit,), (lora,) = (list(server.output.glob(name)) for name in ("loco_edits/edit_*", "loras/loco_edit_*"))
    offered = {
        "LoCo_EditLoad": server.get("/object_info/LoCo_EditLoad")["LoCo_EditLoad"]["input"]["required"]["file"],
        "LoraLoaderModelOnly": server.get("/object_info/LoraLoaderModelOnly")["LoraLoaderModelOnly"]["input"][
            "required"
        ]["lora_name"],
    }
    assert edit.name in str(offered["LoCo_EditLoad"])
    assert lora.name in str(offered["LoraLoaderModelOnly"])


@pytest.mark.parametrize("workflow", [INJECT, REMOVE_STYLE])
def test_before_and_after_are_other_pictures_of_the_same_seeds(server, workflow):
    outputs = server.run(quick(workflow))
    groups = [server.images(node["images"]) for node in outputs.values() if len(node.get("images", [])) == 4]
    before, after = ([Image.open(file).tobytes() for file in group] for group in groups)
    assert all(one != other for one, other in zip(before, after, strict=True))


def test_the_help_pages_and_their_pictures_are_served(server):
    page = server.content("/extensions/ComfyUI-Loco/docs/LoCo_LayerSearch.md")
    assert page.startswith(b"# LoCo Layer Search")
    assert Image.open(io.BytesIO(server.content("/extensions/ComfyUI-Loco/docs/LoCo_LayerSearch.png"))).width > 300


def test_the_script_in_the_readme_runs_a_workflow(server):
    (script,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    here = script.replace("http://127.0.0.1:8188", server.address)
    assert here != script
    ran = subprocess.run([sys.executable, "-c", here], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.startswith("success {")
    assert "injected_" in ran.stdout


def test_the_templates_browser_lists_every_workflow_with_a_picture(server):
    listed = server.get("/workflow_templates")["ComfyUI-Loco"]
    assert sorted(listed) == sorted(path.stem for path in (ROOT / "workflows").glob("*.json"))
    for name in listed:
        picture = Image.open(io.BytesIO(server.content(f"/api/workflow_templates/ComfyUI-Loco/{quote(name)}.jpg")))
        assert picture.format == "JPEG"
        assert min(picture.size) >= 400


def test_the_same_graph_run_again_shows_its_text_again(server):
    graph = quick_edit()
    runs = [server.run(graph) for _ in range(2)]
    first, second = ({key: node["text"][0] for key, node in outputs.items() if "text" in node} for outputs in runs)
    assert first == second
    by_class = {graph[key]["class_type"]: text for key, text in first.items()}
    assert by_class.keys() == {"LoCo_LayerSelect", "LoCo_EditSolve", "LoCo_EditApply"}
    assert by_class["LoCo_LayerSelect"] == "layers 8-9, blocks u1.0, u2.0"
    assert by_class["LoCo_EditSolve"].startswith("gone: ")  # checked on the model
    assert by_class["LoCo_EditApply"] == 'layers 8-9 respond to "pointillism" as to "a painting"'


def test_a_saved_search_is_offered_and_its_layers_are_loaded(server):
    server.run(quick(FIND_STYLE))
    file = server.get("/object_info/LoCo_LayersLoad")["LoCo_LayersLoad"]["input"]["required"]["file"]
    newest = file[1]["options"][0]
    assert newest.startswith("loco/search_")
    outputs = server.run({"1": {"class_type": "LoCo_LayersLoad", "inputs": {"file": newest}}})
    assert outputs["1"]["text"][0].startswith("layers ")


def test_a_mistake_reaches_the_user_as_a_sentence(server):
    graph = quick(FIND_STYLE)
    graph["3"]["inputs"]["target_prompts"] = "one\ntwo"
    with pytest.raises(RuntimeError, match="concept prompts: 4 lines, target prompts: 2 lines"):
        server.run(graph)


def pictures(server, outputs: dict) -> dict[str, list[bytes]]:
    """The pixels of every saved image, by node id."""
    saved = {key: node["images"] for key, node in outputs.items() if len(node.get("images", [])) == 4}
    return {key: [Image.open(file).tobytes() for file in server.images(images)] for key, images in saved.items()}


def run_afresh(server, graph: dict) -> dict:
    """Runs the graph with nothing cached; its outputs."""
    server.post("/free", {"free_memory": True})
    time.sleep(1)  # the server empties its cache between two graphs
    entry = server.wait(server.queue(graph))
    assert dict(entry["status"]["messages"])["execution_cached"]["nodes"] == []
    return entry["outputs"]


def cancel(server, graph: dict) -> tuple[dict, float]:
    """Runs the graph, cancels it after three seconds; its history entry and how many seconds Cancel took."""
    prompt_id = server.queue(graph)
    deadline = time.monotonic() + 60
    while not server.get("/queue")["queue_running"] and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(3)
    server.post("/interrupt", {})
    cancelled = time.monotonic()
    return server.wait(prompt_id), time.monotonic() - cancelled


def interrupted(entry: dict) -> bool:
    return any(kind == "execution_interrupted" for kind, _ in entry["status"]["messages"])


def test_cancel_stops_a_search_within_a_step_and_the_server_goes_on(server):
    graph = quick(FIND_STYLE)
    graph["3"]["inputs"] |= {"steps": 1000, "seed": 77}
    entry, seconds = cancel(server, graph)
    assert interrupted(entry)
    assert seconds < 5  # one step of 32 images takes about half a second on two cores
    assert server.run(quick(FIND_STYLE))


def test_cancel_stops_an_edit_within_a_second_and_the_server_goes_on(server):
    graph = quick_edit()
    (edit,) = (node["inputs"] for node in graph.values() if node["class_type"] == "LoCo_EditSolve")
    edit["concept"] = "\n".join(f"style number {number}" for number in range(5000))
    entry, seconds = cancel(server, graph)
    assert interrupted(entry)
    assert seconds < 1
    assert server.run(quick_edit())


def test_the_same_graph_gives_the_same_pixels_again_also_after_a_cancelled_run(server):
    first = pictures(server, server.run(quick_edit()))
    endless = quick_edit()
    for node in endless.values():
        if node["class_type"] == "KSampler":
            node["inputs"]["steps"] = 1000
    assert interrupted(cancel(server, endless)[0])
    assert len(first) == 2
    assert pictures(server, run_afresh(server, quick_edit())) == first


def test_a_second_model_of_the_same_checkpoint_in_the_graph_is_not_edited(server):
    graph = quick_edit()
    expected = pictures(server, server.run(graph))
    (loader,) = (key for key, node in graph.items() if node["class_type"] == "CheckpointLoaderSimple")
    graph["second"] = graph[loader]
    (plain,) = (
        node for node in graph.values() if node["class_type"] == "KSampler" and node["inputs"]["model"][0] == loader
    )
    plain["inputs"]["model"] = ["second", 0]
    assert pictures(server, run_afresh(server, graph)) == expected


@pytest.mark.parametrize("name", [path.stem for path in sorted((ROOT / "workflows").glob("*.json"))])
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
