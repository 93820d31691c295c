"""`python -m loco_core`: what it writes, what it exits with, what it says of mistakes."""

from __future__ import annotations

import csv
import json
import re
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from textwrap import dedent

import pytest
import torch
from PIL import Image
from safetensors import safe_open

pytest.importorskip("diffusers")

from loco_core.commands import app as command_line
from loco_core.commands import options, trace
from loco_core.diffusers_host.demo_model import demo_pipeline
from loco_core.diffusers_host.engine import DiffusersEngine
from loco_core.diffusers_host.pipelines import best_device
from loco_core.editing.file import load_edit
from loco_core.localization.evaluation import SearchProgress
from loco_core.prompts import Attribute
from made_up import SD15, SDXL

README = Path(__file__).resolve().parents[3] / "README.md"
STAR = "a picture of a red star"
QUICK = ["--steps", "2", "--seeds", "1", "--rows", "32"]
WOODCUT = ["--concept", f"{STAR} in the style of woodcut", "--target", STAR]


# What is read of a search's result.
SEARCHED = json.dumps(
    {
        "layers": [8, 9],
        "layer_count": 16,
        "pairs": [{"concept": "woodcut"}],
        "verdict": {"kind": "localized"},
        "attribute": "style",
    }
)


def images_listed(folder: Path) -> list[dict[str, str]]:
    with (folder / "images.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_the_readmes_trace_writes_a_result_the_scores_of_every_image_and_three_pictures(tmp_path, capsys):
    (line,) = re.findall(r"python -m loco_core (trace .*)", README.read_text(encoding="utf-8"))
    assert command_line.main([*shlex.split(line), *QUICK, "--out", str(tmp_path / "found")]) == 0
    assert "style: layers 8-9" in capsys.readouterr().out
    result = json.loads((tmp_path / "found" / "result.json").read_text())
    assert result["effort"] == "probe"
    assert result["provenance"]["host"].startswith("diffusers ")
    assert len(images_listed(tmp_path / "found")) == len(result["scores"]) * line.count("--concept")
    for name in ("layers.png", "images.png"):
        assert min(Image.open(tmp_path / "found" / name).size) > 200


@pytest.mark.slow
def test_an_exhaustive_trace_makes_every_image_of_every_window(tmp_path):
    asked = ["trace", *WOODCUT, *QUICK, "--effort", "exhaustive", "--window-size", "2", "--out", str(tmp_path)]
    assert command_line.main(asked) == 0
    assert len(images_listed(tmp_path)) == 17  # 15 windows, unmodified, all layers


@pytest.fixture
def demo_folder(monkeypatch) -> list[str]:
    """The demo model as a person's own would be: in a folder, which brings no scorer."""
    monkeypatch.setattr(options, "load_engine", lambda settings: DiffusersEngine(demo_pipeline()))
    return ["--model", "own", "--preset", "demo", "--size", "128"]


@pytest.mark.slow
def test_a_trace_by_probe_needs_no_scorer(tmp_path, capsys, demo_folder):
    assert command_line.main(["trace", *WOODCUT, *QUICK, *demo_folder, "--out", str(tmp_path)]) == 0
    assert "localized: layers 8-9 make" in capsys.readouterr().out
    assert json.loads((tmp_path / "result.json").read_text())["scores"] is None
    assert {line["score"] for line in images_listed(tmp_path)} == {""}


@pytest.mark.slow
def test_a_trace_of_sd3_and_flux_finds_blocks_by_their_own_sampling(tmp_path, transformer_folder):
    assert command_line.main(["trace", *WOODCUT, *QUICK, *transformer_folder, "--out", str(tmp_path)]) == 0
    result = json.loads((tmp_path / "result.json").read_text())
    assert (result["sampling"]["sampler"], result["sampling"]["scheduler"]) == ("euler", "linspace")
    for name in ("layers.png", "images.png"):
        assert min(Image.open(tmp_path / name).size) > 100


@pytest.mark.slow
def test_sd3_and_flux_are_not_edited_nor_sampled_as_in_the_paper(tmp_path, capsys, transformer_folder):
    for asked, sentence in (
        (
            ["edit", *WOODCUT],
            "get the text as other parts of the model have changed it, so they have no neurons",
        ),
        (["inject", "--prompt", STAR, "--other", "a", "--layers", "1", "--preset", "paper"], "sampler: 'pndm'; give"),
    ):
        assert command_line.main([*asked, *transformer_folder, "--out", str(tmp_path / "out")]) == 2
        assert sentence in capsys.readouterr().err


@pytest.mark.parametrize(
    ("layers", "width", "attribute", "size"),
    [(SD15, 768, "style", 2), (SD15, 1024, "style", 3), (SDXL, 2048, "object", 5)],
)
def test_a_trace_with_the_papers_preset_has_the_papers_window_size(layers, width, attribute, size):
    assert trace.paper_window_size(replace(layers, width=width), Attribute(attribute)) == size


@pytest.mark.slow
def test_the_readmes_script_finds_the_layers_of_the_demo_models_styles():
    script = README.read_text(encoding="utf-8").split("In a script:\n\n")[1].split("\n\nThe tests compare")[0]
    ran = subprocess.run([sys.executable, "-c", dedent(script)], cwd=README.parent, capture_output=True, text=True)
    assert "localized: layers 8-9" in ran.stdout, ran.stderr


@pytest.mark.slow
def test_after_ctrl_c_the_finished_images_are_there_and_the_same_command_goes_on(tmp_path, monkeypatch, capsys):
    search, recalled = trace.search, []  # the cost, batch by batch, that the first run had paid

    def stopped(engine, scorer, plan, rows, progress, journal):
        def press_after_a_batch(evaluation):
            progress.on_batch(evaluation)
            recalled.append(evaluation.recalled)
            if len(evaluation.cells) == 3 and not any(recalled):  # the first of two batches of six images
                raise KeyboardInterrupt

        return search(engine, scorer, plan, rows, SearchProgress(on_batch=press_after_a_batch), journal)

    monkeypatch.setattr(trace, "search", stopped)
    asked = ["trace", *WOODCUT, *QUICK[:-1], "4", "--out", str(tmp_path)]
    assert command_line.main(asked) == 130
    assert "what was finished is in the output folder" in capsys.readouterr().err
    assert len(images_listed(tmp_path)) == 3
    assert command_line.main(asked) == 0
    assert "3 images of this search are known from before" in capsys.readouterr().out
    assert max(recalled) == 3  # they are not made again
    every = len(images_listed(tmp_path))
    assert every > 3
    assert command_line.main(asked) == 0
    assert f"{every} images of this search are known from before" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("latents", "pixels"),
    [(64, 512), (96, 768), (128, 1024), (None, 512)],  # SD 1.5, SD 2.1, SDXL, a folder that does not tell
)
def test_images_have_the_size_that_the_model_was_made_for(tmp_path, latents, pixels):
    (tmp_path / "unet").mkdir()
    (tmp_path / "unet" / "config.json").write_text(json.dumps({"sample_size": latents} if latents else {}))
    chosen = options.SamplingOptions(str(tmp_path), None, None, None, None, None, None, None, "", 0, 8)
    assert (chosen.settings.sampling.width, chosen.settings.sampling.height) == (pixels, pixels)
    assert replace(chosen, size=640).settings.sampling.width == 640
    checkpoint = replace(chosen, model="mine.safetensors", config=tmp_path)
    assert checkpoint.settings.sampling.width == pixels
    assert replace(chosen, model="demo").settings.sampling.width == 128


@pytest.mark.parametrize(
    ("cuda", "mps", "device"),
    [(True, False, "cuda"), (False, True, "mps"), (False, False, "cpu"), (True, True, "cuda")],
)
def test_the_fastest_device_is_used(monkeypatch, cuda, mps, device):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert best_device() == device


def test_edit_writes_a_lora_with_its_recipe_and_a_picture(tmp_path):
    chosen = ["--concept", "woodcut", "--target", "a painting", "--layers", "8-9", "--prompt", STAR]
    assert command_line.main(["edit", *chosen, *QUICK, "--out", str(tmp_path)]) == 0
    with safe_open(tmp_path / "lora.safetensors", "pt") as file:
        assert json.loads(file.metadata()["loco_recipe"])["layers"] == [8, 9]
        assert len(file.keys()) == 3 * 4
    assert load_edit(tmp_path / "edit.safetensors").recipe.layers.indices == (8, 9)
    assert Image.open(tmp_path / "before_after.png").size[1] > 2 * 128


def test_an_edit_without_layers_is_made_where_the_model_has_the_concept_and_writes_over_nothing(tmp_path, capsys):
    (tmp_path / "edit").mkdir()
    (tmp_path / "edit" / "mine.txt").touch()
    chosen = ["--concept", "woodcut", "--target", "a painting", "--preserve", STAR, "--prompt", STAR]
    assert command_line.main(["edit", *chosen, *QUICK, "--out", str(tmp_path / "edit")]) == 0
    assert "where it is: localized: layers 8-9" in capsys.readouterr().out
    assert load_edit(tmp_path / "edit-2" / "edit.safetensors").recipe.layers.indices == (8, 9)


def test_what_the_model_does_not_know_is_not_edited(tmp_path, capsys):
    chosen = ["--concept", "xyzzy", "--target", "a painting", "--preserve", STAR, "--out", str(tmp_path)]
    assert command_line.main(["edit", *chosen, *QUICK]) == 2
    assert "NOTHING IS EDITED: write the concept as your prompts say it" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("layers", ["8-9", "a search's"])
def test_layers_get_another_prompt(tmp_path, layers):
    found = tmp_path / "result.json"
    found.write_text(SEARCHED)
    asked = ["--prompt", STAR, "--other", "a fish", "--layers", str(found) if layers == "a search's" else layers]
    assert command_line.main(["inject", *asked, *QUICK, "--out", str(tmp_path / "out")]) == 0
    assert Image.open(tmp_path / "out" / "before_after.png").size[1] > 2 * 128


def test_an_edit_that_was_saved_is_scored_before_and_after(tmp_path, capsys):
    edit = ["edit", "--concept", "woodcut", "--target", "a painting", "--layers", "8-9", "--prompt", STAR]
    assert command_line.main([*edit, *QUICK, "--out", str(tmp_path / "edit")]) == 0
    file, out = tmp_path / "edit" / "edit.safetensors", tmp_path / "report"
    asked = [*WOODCUT, "--keep", "a picture of a fish", *QUICK, "--steps", "5", "--out", str(out)]
    assert command_line.main(["report", "--edit", str(file), *asked]) == 0
    assert (out / "report.txt").read_text() in capsys.readouterr().out
    assert Image.open(out / "before_after.png").size[1] > 2 * 128


@pytest.fixture(scope="module")
def neurons(tmp_path_factory):
    """The file of neurons that tell woodcut, as the command writes it."""
    out = tmp_path_factory.mktemp("neurons")
    plain = [part for thing in ("star", "fish", "boat") for part in ("--without", f"a picture of a {thing}")]
    asked = ["--concept", "woodcut", *plain, "--without", "halftone", "--layers", "8-9", "--out", str(out)]
    assert command_line.main(["neurons", "detect", *asked]) == 0
    assert min(Image.open(out / "neurons.png").size) > 200
    return out / "neurons.safetensors"


def test_neurons_are_ablated_before_and_after(neurons, tmp_path, capsys):
    asked = ["--neurons", str(neurons), "--count", "64", "--prompt", f"{STAR} in the style of woodcut"]
    assert command_line.main(["neurons", "ablate", *asked, *QUICK, "--out", str(tmp_path)]) == 0
    assert "64 of 256 neurons, mean" in capsys.readouterr().out
    assert Image.open(tmp_path / "before_after.png").size[1] > 2 * 128


def test_neurons_ablated_to_zero_are_a_lora_too(neurons, tmp_path):
    asked = ["--neurons", str(neurons), "--count", "64", "--mode", "zero", "--prompt", STAR]
    assert command_line.main(["neurons", "ablate", *asked, *QUICK, "--out", str(tmp_path)]) == 0
    with safe_open(tmp_path / "lora.safetensors", "pt") as file:
        assert json.loads(file.metadata()["loco_neurons"])["layers"] == [8, 9]
        assert len(file.keys()) == 3 * 2  # the values of two layers


@pytest.mark.slow
def test_measured_effects_are_a_ranking(neurons, tmp_path, capsys):
    asked = ["--neurons", str(neurons), *WOODCUT, "--keep", "a picture of a blue fish", "--runs", "16", "--rounds", "1"]
    assert command_line.main(["neurons", "effects", *asked, *QUICK, "--out", str(tmp_path)]) == 0
    assert "effects measured: effect and signal agree to" in capsys.readouterr().out
    assert min(Image.open(tmp_path / "effects.png").size) > 200
    chosen = ["--neurons", str(tmp_path / "neurons.safetensors"), "--rank-by", "effect", "--prompt", STAR]
    assert command_line.main(["neurons", "ablate", *chosen, *QUICK, "--out", str(tmp_path)]) == 0


@pytest.mark.slow
def test_a_sweep_says_how_many_neurons_to_choose(neurons, tmp_path, capsys):
    asked = ["--neurons", str(neurons), "--counts", "16, 100%", *WOODCUT, "--keep", "a picture of a blue fish"]
    assert command_line.main(["neurons", "sweep", *asked, *QUICK, "--out", str(tmp_path)]) == 0
    assert "of 256 neurons" in capsys.readouterr().out
    assert (tmp_path / "sweep.txt").read_text().startswith("choose ")
    for name in ("sweep.png", "sheet.png"):
        assert min(Image.open(tmp_path / name).size) > 100


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "change", "sentence"),
    [
        ("ablate", ["--count", "257"], "count: 257; there are 256 of these neurons in layers 8-9"),
        ("ablate", ["--mode", "scale", "--scale", "3"], "scale: 3.0; give 0 to 2"),
        ("ablate", ["--scale", "0.5"], "scale: --mode scale and --scale, 0 to 2, go together"),
        ("ablate", ["--mode", "scale"], "scale: --mode scale and --scale, 0 to 2, go together"),
        ("ablate", ["--rank-by", "effect"], "rank by: the effect of these neurons was not measured"),
        ("ablate", ["--neurons", __file__], "holds no neurons saved by LoCo Neuron Save"),
        ("sweep", ["--counts", "999"], "counts: '999'; there are 256 neurons"),
    ],
)
def test_a_mistake_with_neurons_ends_with_one_sentence(neurons, command, change, sentence, capsys, tmp_path):
    own = {"ablate": ["--prompt", STAR], "sweep": [*WOODCUT, "--keep", STAR]}[command]
    arguments = ["neurons", command, "--neurons", str(neurons), *own, *change, "--out", str(tmp_path)]
    assert command_line.main(arguments) == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert error.count("\n") == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["trace"], "Missing option '--concept'"),
        (["trace", "--concept", " ", "--target", "a"], "concept: empty; give at least one line"),
        (["trace", *WOODCUT, "--scorer", "nowhere.safetensors"], "scorer: nowhere.safetensors is not a .safetensors"),
        (["trace", *WOODCUT, "--model", "nowhere"], "nowhere is not a diffusers folder"),
        (["trace", *WOODCUT, "--model", "nowhere", "--effort", "exhaustive"], "scorer: missing; effort exhaustive"),
        (["trace", *WOODCUT, "--preset", "paper"], "preset: the paper has no window size for a model with 16 cross-"),
        (["paper", "--model", "nowhere", "--exhaustive"], "scorer: missing; effort exhaustive"),
        (["paper", "--only", "Dali"], "'Dali' is not one of 'style', 'object', 'fact', 'Van Gogh'"),
        (["trace", *WOODCUT, "--window-size", "17"], "window size: 17; this model has 16 layers"),
        (["trace", *WOODCUT, "--attribute", "mood"], "'mood' is not one of 'style', 'object', 'fact'"),
        (["edit", *WOODCUT, "--layers", "8", "--model", "nowhere"], "nowhere is not a diffusers folder"),
        (["edit", *WOODCUT, "--layers", "99"], "layers: '99' does not exist; this model has layers 0 to 15"),
        (["edit", *WOODCUT, "--layers", ""], "layers: empty"),
        (["edit", *WOODCUT, "--layers", "8", "--target", "b"], "concept: 1 lines, target: 2 lines"),
        (["edit", *WOODCUT, "--layers", "8", "--preset", "mine"], "'mine' is not one of 'demo', 'paper'"),
        (["edit", *WOODCUT, "--layers", "8", "--size", "100"], "100 is not a multiple of 8"),
        (["edit", *WOODCUT, "--layers", "8", "--strength", "0"], "edit: it changes nothing"),
        (["edit", *WOODCUT, "--layers", "8", "--strength", "nan"], "strength: nan; give a number"),
        (["edit", *WOODCUT, "--layers", "8", "--relative-ridge", "-1"], "relative ridge: -1.0; give a number above 0"),
        (["edit", *WOODCUT, "--layers", "8", "--seed", "-1"], "-1 is not in the range"),
        (["edit", *WOODCUT, "--layers", "8", "--out", __file__], "exists"),
        (["neurons", "detect"], "Missing option '--concept'"),
        (
            ["neurons", "detect", "--concept", "woodcut", "--without", "a star", "--layers", "8"],
            "concept: 1 different prompts; a statistic needs 2 or more",
        ),
        (["paint"], "No such command 'paint'"),
    ],
)
def test_a_mistake_ends_with_one_sentence_and_exit_code_2(arguments, sentence, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert command_line.main(arguments) == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "command",
    [
        [],
        ["trace"],
        ["paper"],
        ["edit"],
        ["inject"],
        ["report"],
        ["neurons"],
        ["neurons", "sweep"],
        ["neurons", "effects"],
    ],
)
def test_help_tells_what_a_command_does_and_exits_with_0(command, capsys):
    assert command_line.main([*command, "--help"]) == 0
    assert "Usage:" in capsys.readouterr().out


def test_the_list_of_commands_is_shown_without_pytorch_and_diffusers():
    """Which take seconds to read."""
    heavy = "{'torch', 'diffusers', 'transformers', 'matplotlib'} & set(sys.modules)"
    told = f"import sys; from loco_core.commands.app import main; main(['--help']); sys.exit(bool({heavy}))"
    subprocess.run([sys.executable, "-c", told], cwd=README.parent, check=True, stdout=subprocess.DEVNULL)
