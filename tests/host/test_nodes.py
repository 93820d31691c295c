"""The nodes as the host sees and runs them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
NODES = [
    "LoCo_CLIPScorer",
    "LoCo_LayerSearch",
    "LoCo_LayerSelect",
    "LoCo_LayersLoad",
    "LoCo_ConditioningInjector",
    "LoCo_EditApply",
]


@pytest.fixture(scope="session")
def execute(host):
    """execute(node id, **inputs) -> the node's outputs, run as the host runs a V3 node without a browser."""

    def run(node_id: str, **inputs):
        node = host.nodes.NODE_CLASS_MAPPINGS[node_id].PREPARE_CLASS_CLONE(None)
        defaults = {
            socket.id: socket.default
            for socket in node.GET_SCHEMA().inputs
            if getattr(socket, "default", None) is not None
        }
        with torch.inference_mode():
            return node.execute(**defaults | inputs).result

    return run


@pytest.fixture(scope="module")
def search(execute, demo):
    (scorer,) = execute("LoCo_CLIPScorer", file="loco_demo_clip.safetensors")
    inputs = {
        "concept_prompts": "a picture of a red star in the style of woodcut",
        "target_prompts": "a picture of a red star",
        "seed_count": 1,
        "steps": 3,
        "cfg": 2.0,
        "width": 128,
        "height": 128,
        "batch_rows": 16,
        "filename_prefix": "loco/test",
    }

    def run(**changes):
        wired = {"model": demo.model, "clip": demo.clip, "vae": demo.vae, "scorer": scorer}
        return execute("LoCo_LayerSearch", **wired | inputs | changes)

    return run


@pytest.mark.parametrize("node_id", NODES)
def test_every_node_input_and_output_is_explained(host, node_id):
    schema = host.nodes.NODE_CLASS_MAPPINGS[node_id].GET_SCHEMA()
    assert schema.category == "loco"
    assert schema.description
    assert [part.id for part in (*schema.inputs, *schema.outputs) if not part.tooltip] == []


def test_a_search_gives_layers_pictures_a_report_and_files(search, host):
    layers, plot, sheet, report = search()
    assert len(layers) == 2
    assert layers.layer_count == 16
    for picture in (plot, sheet):
        assert picture.ndim == 4 and picture.shape[-1] == 3 and 0 <= picture.min() and picture.max() <= 1
    assert f"style: layers {layers}" in report
    saved = Path(host.folder_paths.get_output_directory()) / report.rsplit("saved as ", 1)[1]
    content = json.loads(saved.read_text())
    assert content["layers"] == list(layers)
    assert len(content["provenance"]["model_hash"]) == 16
    assert len(saved.with_suffix(".csv").read_text().splitlines()) == 1 + 16


def test_a_search_run_twice_gives_the_same_report(search):
    first, second = (search(filename_prefix="loco/twice")[3].rsplit("saved as", 1)[0] for _ in range(2))
    assert first == second


def test_the_layers_of_a_saved_search_can_be_loaded_again(search, execute):
    layers, _, _, report = search(filename_prefix="loco/load")
    loaded, text = execute("LoCo_LayersLoad", file=report.rsplit("saved as ", 1)[1])
    assert loaded == layers
    assert text == f"layers {layers} of 16: style, a picture of a red star in the style of woodcut"


def test_layers_are_shown_by_index_and_by_block(execute, demo):
    layers, text = execute("LoCo_LayerSelect", model=demo.model, layers="m0, 8-9")
    assert layers.indices == (6, 8, 9)
    assert text == "layers 6, 8-9: m0.0, u1.0, u2.0"


@pytest.mark.parametrize("node_id", NODES)
def test_every_node_has_a_help_page_that_names_its_inputs_and_outputs(host, node_id):
    schema = host.nodes.NODE_CLASS_MAPPINGS[node_id].GET_SCHEMA()
    page = (ROOT / "web" / "docs" / f"{node_id}.md").read_text(encoding="utf-8")
    assert page.startswith(f"# {schema.display_name}\n")
    named = {
        name.strip() for line in page.splitlines() if line.startswith("| ") for name in line.split("|")[1].split(",")
    }
    assert {socket.id for socket in schema.inputs} | {output.display_name for output in schema.outputs} <= named


def test_the_edit_node_edits_the_layers_it_is_given(execute, pack, demo, sample):
    layers = pack("loco_core.layers").LayerSet((8, 9), 16)
    inputs = {"model": demo.model, "clip": demo.clip, "layers": layers, "concept": "woodcut"}
    (edited,) = execute("LoCo_EditApply", **inputs)
    prompt = "a red star in the style of woodcut"
    assert (sample(edited, demo.clip, prompt) - sample(demo.model, demo.clip, prompt)).abs().max() > 0.1
    (untouched,) = execute("LoCo_EditApply", **inputs, strength=0.0)
    assert (sample(untouched, demo.clip, prompt) - sample(demo.model, demo.clip, prompt)).abs().max() == 0


def test_the_demo_files_are_listed_where_people_look_for_them(host):
    assert "loco_demo.safetensors" in host.folder_paths.get_filename_list("checkpoints")
    assert "loco_demo_clip.safetensors" in host.folder_paths.get_filename_list("open_clip")
