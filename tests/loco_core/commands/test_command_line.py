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
from loco_core.diffusers_host.pipelines import best_device
from loco_core.editing.file import load_edit
from loco_core.localization.evaluation import SearchProgress

README = Path(__file__).resolve().parents[3] / "README.md"
STAR = "a picture of a red star"
QUICK = ["--steps", "2", "--seeds", "1", "--rows", "32"]
WOODCUT = ["--concept", f"{STAR} in the style of woodcut", "--target", STAR]


@pytest.mark.slow
def test_the_readmes_trace_writes_a_result_the_scores_of_every_image_and_two_pictures(tmp_path, capsys):
    (line,) = re.findall(r"python -m loco_core (trace .*)", README.read_text(encoding="utf-8"))
    assert command_line.main([*shlex.split(line), *QUICK, "--out", str(tmp_path / "found")]) == 0
    assert "style: layers" in capsys.readouterr().out
    result = json.loads((tmp_path / "found" / "result.json").read_text())
    assert len(result["scores"]) == 15
    assert result["provenance"]["host"].startswith("diffusers ")
    with (tmp_path / "found" / "scores.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 17 * line.count("--concept")  # 15 windows, unmodified, all layers
    for name in ("scores.png", "windows.png"):
        assert min(Image.open(tmp_path / "found" / name).size) > 200


@pytest.mark.slow
def test_the_readmes_script_finds_the_layers_of_the_demo_models_styles():
    script = README.read_text(encoding="utf-8").split("In a script:\n\n")[1].split("\n\nThe tests compare")[0]
    ran = subprocess.run([sys.executable, "-c", dedent(script)], cwd=README.parent, capture_output=True, text=True)
    assert "localized: layers 8-9" in ran.stdout, ran.stderr


@pytest.mark.slow
def test_after_ctrl_c_the_finished_images_are_there_and_the_same_command_goes_on(tmp_path, monkeypatch, capsys):
    search, recalled = trace.search, []  # the cost, batch by batch, that the first run had paid

    def stopped(engine, scorer, plan, rows, progress, journal):
        def press_after_two_batches(evaluation):
            progress.on_batch(evaluation)
            recalled.append(evaluation.recalled)
            if len(evaluation.scores) == 6 and not any(recalled):  # unmodified and all layers, then four windows
                raise KeyboardInterrupt

        return search(engine, scorer, plan, rows, SearchProgress(press_after_two_batches), journal)

    monkeypatch.setattr(trace, "search", stopped)
    asked = ["trace", *WOODCUT, *QUICK[:-1], "4", "--out", str(tmp_path)]
    assert command_line.main(asked) == 130
    assert "what was finished is in the output folder" in capsys.readouterr().err
    with (tmp_path / "scores.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 6
    assert command_line.main(asked) == 0
    assert "6 images of this search are known from before" in capsys.readouterr().out
    assert max(recalled) == 6  # they are not made again
    with (tmp_path / "scores.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 17
    assert command_line.main(asked) == 0
    assert "17 images of this search are known from before" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("latents", "pixels"),
    [(64, 512), (96, 768), (128, 1024), (None, 512)],  # SD 1.5, SD 2.1, SDXL, a folder that does not tell
)
def test_images_have_the_size_that_the_model_was_made_for(tmp_path, latents, pixels):
    (tmp_path / "unet").mkdir()
    (tmp_path / "unet" / "config.json").write_text(json.dumps({"sample_size": latents} if latents else {}))
    chosen = options.SamplingOptions(str(tmp_path), None, None, None, None, None, None, "", 0, 8)
    assert (chosen.settings.sampling.width, chosen.settings.sampling.height) == (pixels, pixels)
    assert replace(chosen, size=640).settings.sampling.width == 640
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
        ("ablate", ["--count", "257"], "count: 257; layers 8-9 of these neurons has 256"),
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
        (["trace", *WOODCUT, "--model", "nowhere"], "scorer: give --scorer"),
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
    "command", [[], ["trace"], ["edit"], ["neurons"], ["neurons", "sweep"], ["neurons", "effects"]]
)
def test_help_tells_what_a_command_does_and_exits_with_0(command, capsys):
    assert command_line.main([*command, "--help"]) == 0
    assert "Usage:" in capsys.readouterr().out
