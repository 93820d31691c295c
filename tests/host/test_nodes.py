"""The nodes as the host sees and runs them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

NODES = ["LoCo_CLIPScorer", "LoCo_LayerSearch", "LoCo_EditApply"]


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


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"concept_prompts": " "}, "concept prompts: empty"),
        ({"target_prompts": ""}, "target prompts: empty"),
        ({"concept_prompts": "a\nb\nc", "target_prompts": "a\nb"}, "concept prompts: 3 lines, target prompts: 2 lines"),
        ({"window_size": 17}, "window size: 17; this model has 16 layers"),
    ],
)
def test_a_mistake_is_named_before_anything_is_sampled(search, change, message):
    with pytest.raises(ValueError, match=message):
        search(**change)


def test_the_edit_node_edits_the_layers_it_is_given(execute, pack, demo, sample):
    layers = pack("loco_core.layers").LayerSet((8, 9), 16)
    inputs = {"model": demo.model, "clip": demo.clip, "layers": layers, "concept": "woodcut"}
    (edited,) = execute("LoCo_EditApply", **inputs)
    prompt = "a red star in the style of woodcut"
    assert (sample(edited, demo.clip, prompt) - sample(demo.model, demo.clip, prompt)).abs().max() > 0.1
    (untouched,) = execute("LoCo_EditApply", **inputs, strength=0.0)
    assert (sample(untouched, demo.clip, prompt) - sample(demo.model, demo.clip, prompt)).abs().max() == 0


def test_a_missing_scorer_file_is_an_error_that_says_which_to_get_and_where_to_put_it(execute):
    with pytest.raises(ValueError, match="Get a CLIP model in open_clip's format.*models/open_clip/ViT-B-16"):
        execute("LoCo_CLIPScorer", file="absent.safetensors")


def test_downloading_needs_an_architecture_by_name(execute):
    with pytest.raises(ValueError, match="architecture: 'from the file'; to download, choose one of ViT-B-32"):
        execute("LoCo_CLIPScorer", file="", download=True)


def test_the_demo_files_are_listed_where_people_look_for_them(host):
    assert "loco_demo.safetensors" in host.folder_paths.get_filename_list("checkpoints")
    assert "loco_demo_clip.safetensors" in host.folder_paths.get_filename_list("open_clip")
