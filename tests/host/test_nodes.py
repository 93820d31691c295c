"""The nodes as the host sees and runs them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors import safe_open

from loco_core.models.layers import LayerSet
from made_up import shared_operator

ROOT = Path(__file__).resolve().parents[2]
NODES = [
    "LoCo_CLIPScorer",
    "LoCo_CLIPVisionScorer",
    "LoCo_Probe",
    "LoCo_LayerSearch",
    "LoCo_LayerSelect",
    "LoCo_LayersLoad",
    "LoCo_ConditioningInjector",
    "LoCo_Remove",
    "LoCo_EditApply",
    "LoCo_EditSolve",
    "LoCo_EditCheck",
    "LoCo_EditCombine",
    "LoCo_EditSave",
    "LoCo_EditLoad",
    "LoCo_EditExportLoRA",
    "LoCo_ErasureReport",
    "LoCo_NeuronDetect",
    "LoCo_NeuronAblate",
    "LoCo_NeuronSave",
    "LoCo_NeuronLoad",
    "LoCo_NeuronSweep",
    "LoCo_NeuronEffects",
    "LoCo_NeuronExportLoRA",
]


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
    assert schema.category.split("/")[0] == "loco"
    assert schema.description
    assert [part.id for part in (*schema.inputs, *schema.outputs) if not part.tooltip] == []


def test_a_search_says_first_how_the_probe_comes_on_and_then_how_long_the_images_take(search, pack, monkeypatch):
    told = []
    monkeypatch.setattr(pack("nodes.host.progress"), "show_text", lambda text, node_id: told.append(text))
    search(batch_rows=1, width=64, height=64, filename_prefix="loco/one")
    probed = [text for text in told if text.startswith("probing the layers: ")]
    assert told[: len(probed)] == probed and len(probed) > 10
    intro, first, *_ = told[len(probed) :]
    assert intro == "about 7 images of 3 steps"
    assert first.startswith("1 of 7 images, unmodified, ") and first.endswith(" left")


def test_a_search_gives_layers_pictures_a_report_and_files(search, host, demo, engine_of):
    layers, smallest, plot, sheet, report = search()
    assert layers.indices == smallest.indices == (8, 9)
    assert layers.layer_count == 16
    for picture in (plot, sheet):
        assert picture.ndim == 4 and picture.shape[-1] == 3 and 0 <= picture.min() and picture.max() <= 1
    assert f"style: layers {layers}" in report
    saved = Path(host.folder_paths.get_output_directory()) / report.rsplit("saved as ", 1)[1]
    content = json.loads(saved.read_text())
    assert content["layers"] == content["smallest_set"] == list(layers)
    digest = content["provenance"]["model_digest"]
    assert len(digest) == 16
    assert digest == engine_of(demo.model, demo.clip, demo.vae).digest()
    # unmodified, all layers, the window, two beside it, the best apart from it
    assert len(saved.with_suffix(".csv").read_text().splitlines()) == 1 + 6


def test_an_exhaustive_search_makes_an_image_of_every_window(search, host):
    *_, sheet, report = search(effort="exhaustive", window_size=2, filename_prefix="loco/exhaustive")
    saved = Path(host.folder_paths.get_output_directory()) / report.rsplit("saved as ", 1)[1]
    assert len(json.loads(saved.read_text())["windows"]) == 15
    assert len(saved.with_suffix(".csv").read_text().splitlines()) == 1 + 17  # unmodified, and all layers
    assert Image.open(saved.with_suffix(".png")).height > 2 * sheet.shape[1]  # 17 rows, of which the node shows 8


def test_a_search_finds_the_fewest_layers_or_as_many_as_it_is_told(search):
    """All of the 16 layers' 15 windows of two are compared either way."""
    assert len(search(window_size=0, filename_prefix="loco/size")[0]) == 2
    assert len(search(window_size=3, filename_prefix="loco/size")[0]) == 3


def test_a_search_without_a_scorer_shows_its_images_and_gives_no_scores(search, host):
    layers, _, _, sheet, report = search(scorer=None, filename_prefix="loco/unscored")
    assert layers.indices == (8, 9)
    assert sheet.ndim == 4 and "CLIP-Score" not in report
    saved = Path(host.folder_paths.get_output_directory()) / report.rsplit("saved as ", 1)[1]
    assert json.loads(saved.read_text())["scores"] is None


@pytest.mark.slow
def test_a_search_run_twice_gives_the_same_report(search):
    first, second = (search(filename_prefix="loco/twice")[4].rsplit("saved as", 1)[0] for _ in range(2))
    assert first == second


@pytest.mark.slow
def test_the_layers_of_a_saved_search_can_be_loaded_again(search, execute):
    layers, *_, report = search(filename_prefix="loco/load")
    loaded, text = execute("LoCo_LayersLoad", file=report.rsplit("saved as ", 1)[1])
    assert loaded == layers
    assert text.startswith(f"layers {layers} of 16: style, a picture of a red star in the style of woodcut")


def test_layers_are_shown_by_index_and_by_block(execute, demo):
    layers, text = execute("LoCo_LayerSelect", model=demo.model, layers="m0, 8-9")
    assert layers.indices == (6, 8, 9)
    assert text == "layers 6, 8-9, blocks m0.0, u1.0, u2.0"


@pytest.mark.parametrize("node_id", NODES)
def test_every_node_has_a_help_page_that_names_its_inputs_and_outputs(host, node_id):
    schema = host.nodes.NODE_CLASS_MAPPINGS[node_id].GET_SCHEMA()
    page = (ROOT / "web" / "docs" / f"{node_id}.md").read_text(encoding="utf-8")
    assert page.startswith(f"# {schema.display_name}\n")
    named = {
        name.strip() for line in page.splitlines() if line.startswith("| ") for name in line.split("|")[1].split(",")
    }
    assert {socket.id for socket in schema.inputs} | {output.display_name for output in schema.outputs} <= named


@pytest.mark.parametrize("node_id", NODES)
def test_every_help_page_shows_a_small_picture_of_its_node(node_id):
    page = ROOT / "web" / "docs" / f"{node_id}.md"
    assert f"]({node_id}.png)\n" in page.read_text(encoding="utf-8")  # the frontend looks beside the page
    assert page.with_suffix(".png").stat().st_size < 40_000  # tests/host/browser/pictures.py makes them


@pytest.fixture(scope="module")
def solve(execute, demo):
    """solve(concept, ...) -> (edit, report) for layers 8 and 9."""
    layers = LayerSet((8, 9), 16)

    def run(concept: str = "woodcut", **inputs):
        return execute("LoCo_EditSolve", clip=demo.clip, layers=layers, concept=concept, preserve="", **inputs)

    return run


def test_an_edit_is_applied_as_much_as_is_asked(execute, demo, sample, solve):
    inputs = {"model": demo.model, "edit": solve()[0]}
    edited, report = execute("LoCo_EditApply", **inputs)
    assert report.startswith('layers 8-9 respond to "woodcut" as to "a painting"\n\nsolved on 4 prompts')
    prompt = "a red star in the style of woodcut"
    assert (sample(edited, demo.clip, prompt) - sample(demo.model, demo.clip, prompt)).abs().max() > 0.1
    untouched, report = execute("LoCo_EditApply", **inputs, strength=0.0)
    assert report == "nothing is edited: strength 0"
    assert (sample(untouched, demo.clip, prompt) - sample(demo.model, demo.clip, prompt)).abs().max() == 0


def test_an_edit_that_is_solved_without_a_model_has_the_settings_given_and_says_so(solve):
    _, report = solve()
    assert report.startswith('layers 8-9 respond to "woodcut" as to "a painting"\nnot checked')
    assert "text encoder: DemoClip, last layer as the model's default" in report
    assert 'concept, taken as a name: "woodcut" (4 prompts, like "a picture in the style of woodcut")' in report


def test_the_report_names_the_clip_skip(execute, host, demo):
    clip = host.nodes.CLIPSetLastLayer().set_last_layer(demo.clip, -2)[0]
    layers = LayerSet((8, 9), 16)
    _, report = execute("LoCo_EditSolve", clip=clip, layers=layers, concept="woodcut")
    assert "text encoder: DemoClip, stop_at_clip_layer -2" in report


def test_combined_edits_are_one_solved_jointly(execute, demo, solve):
    (one, _), (other, _), (both, _) = solve(), solve("halftone"), solve("woodcut\nhalftone")
    joint, report = execute("LoCo_EditCombine", clip=demo.clip, edit_1=one, edit_2=other)
    assert report.startswith('layers 8-9 respond to "woodcut" and 1 more as to what takes their place\n')
    assert "solved on 8 prompts" in report
    one, other = shared_operator(joint), shared_operator(both)
    difference = one.up @ one.down - other.up @ other.down
    assert difference.abs().max() <= 1e-10  # their prompts are solved in the same order


def test_a_saved_edit_is_loaded_as_it_was(execute, host, solve):
    edit, _ = solve()
    (file,) = execute("LoCo_EditSave", edit=edit)
    assert file.startswith("loco_edits/edit_")
    name = file.removeprefix("loco_edits/")
    loaded, report = execute("LoCo_EditLoad", file=name)
    assert "removes: woodcut, a painting in the style of woodcut" in report
    one, other = shared_operator(loaded), shared_operator(edit)
    assert torch.equal(one.up, other.up)
    assert torch.equal(one.down, other.down)
    assert loaded.recipe == edit.recipe


def test_after_the_largest_seed_of_the_host_comes_0(pack):
    assert pack("nodes.inputs.sampling").seeds_from(2**64 - 1, 2) == (2**64 - 1, 0)


@pytest.mark.parametrize("prefix", ["twice", "loco_edits/twice/", "./twice//again"])
def test_nothing_is_written_over_a_file_of_the_same_prefix(execute, solve, prefix):
    edit, _ = solve()
    assert len({execute("LoCo_EditSave", edit=edit, filename_prefix=prefix)[0] for _ in range(3)}) == 3


def test_an_exported_lora_is_offered_by_the_stock_loader_and_tells_how_it_was_made(execute, host, demo, sample, solve):
    edit, _ = solve()
    file, _ = execute("LoCo_EditExportLoRA", model=demo.model, edit=edit)
    path = Path(host.folder_paths.get_output_directory()) / file
    with safe_open(path, "pt") as opened:
        told = json.loads(opened.metadata()["loco_recipe"])
    assert told["text_encoder"] == "DemoClip, last layer as the model's default"
    assert told["layers"] == [8, 9]
    loaded = host.nodes.LoraLoaderModelOnly().load_lora_model_only(demo.model, path.name, 1.0)[0]
    edited, _ = execute("LoCo_EditApply", model=demo.model, edit=edit)
    prompt = "a red star in the style of woodcut"
    plain, one, other = (sample(model, demo.clip, prompt) for model in (demo.model, edited, loaded))
    assert (one - other).norm() <= 1e-2 * (one - plain).norm()  # float16


@pytest.mark.slow
def test_the_erasure_report_says_what_became_of_the_concept_and_of_the_rest(execute, demo, solve, host, pack):
    edit, _ = solve("pointillism")
    edited, _ = execute("LoCo_EditApply", model=demo.model, edit=edit)
    (scorer,) = execute("LoCo_CLIPScorer", file="loco_demo_clip.safetensors")
    sheet, report = execute(
        "LoCo_ErasureReport",
        model_before=demo.model,
        model_after=edited,
        clip=demo.clip,
        vae=demo.vae,
        scorer=scorer,
        concept_prompts="a picture of a red star in the style of pointillism",
        target_prompts="a picture of a red star",
        keep_prompts="a picture of a blue fish",
        seed_count=2,
        steps=8,
        cfg=2.0,
        width=128,
        height=128,
    )
    in_prediction, advice, in_images, *_ = report.splitlines()
    assert in_prediction.startswith("gone: ") and "; the rest is kept" in in_prediction
    assert advice.startswith("if pictures still show it")
    assert in_images == "in images: removed; neighbours kept"
    assert sheet.ndim == 4 and sheet.shape[2] > 2 * 128
    saved = Path(host.folder_paths.get_output_directory()) / report.rsplit("saved as ", 1)[1]
    assert json.loads(saved.read_text())["removed"] > 0.8
    assert not [file for file in pack("nodes.host.folders").saved_searches() if saved.stem in file]


def test_the_demo_files_are_listed_where_people_look_for_them(host):
    assert "loco_demo.safetensors" in host.folder_paths.get_filename_list("checkpoints")
    assert "loco_demo_transformer.safetensors" in host.folder_paths.get_filename_list("diffusion_models")
    assert "loco_demo_clip.safetensors" in host.folder_paths.get_filename_list("open_clip")
