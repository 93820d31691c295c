"""The nodes of single neurons as the host runs them."""

from __future__ import annotations

import pytest
import torch

from loco_core.models.layers import LayerSet


@pytest.fixture(scope="module")
def detect(execute, demo):
    """detect(...) -> neurons, plot, report for woodcut at layers 8 and 9."""
    layers = LayerSet((8, 9), 16)
    asked = {"concept": "woodcut", "without": "a picture of a star\na picture of a fish\na picture of a boat\nhalftone"}
    return lambda **changes: execute(
        "LoCo_NeuronDetect", model=demo.model, clip=demo.clip, **{"layers": layers} | asked | changes
    )


def test_neurons_are_detected_with_a_plot_and_a_report_that_counts_chance(detect):
    neurons, plot, report = detect(part="keys and values")
    assert neurons.count == 512
    assert neurons.with_concept[0] == "a picture of a star in the style of woodcut"
    assert plot.ndim == 4 and plot.shape[-1] == 3
    assert (
        report.startswith("136 of 512 neurons respond to the concept")
        and "3 prompts with the concept, 6 without" in report
    )
    assert "by chance" in report


def test_neurons_are_looked_for_where_the_style_is_when_no_layers_are_given(detect):
    neurons, _, report = detect(layers=None)
    assert neurons.layers.indices == (8, 9)
    assert "where it is: localized: layers 8-9 make" in report


def test_layers_that_do_not_hold_the_style_are_told(detect):
    _, _, report = detect(layers=LayerSet((2, 3), 16))
    assert report.startswith("WARNING: layers 2-3 make ")
    assert not detect()[2].startswith("WARNING")


@pytest.mark.parametrize("text", ["a photo of a {cat|dog}", "a photo of {}", "a {0} star"])
def test_braces_in_a_linked_text_are_text_and_the_report_shows_how_lines_were_taken(detect, text):
    neurons, _, report = detect(without=f"{text}\nname: a picture of a star\nprompt: 1girl")
    assert neurons.with_concept == (f"{text} in the style of woodcut", "1girl in the style of woodcut")
    assert f'without, taken as 2 contexts: "{text}", "1girl"' in report
    assert 'without, taken as a name: "a picture of a star"' in report


def test_ablated_neurons_change_the_image_and_the_report_says_which_they_are(execute, demo, sample, detect):
    neurons, _, _ = detect()
    model, report = execute("LoCo_NeuronAblate", model=demo.model, neurons=neurons, count=64)
    assert report.startswith("not checked: connect a clip")
    assert "\n64 of 256 neurons, mean: layer 8 values " in report
    assert 'concept, taken as a name: "woodcut" (3 prompts, like ' in report
    prompt = "a red star in the style of woodcut"
    assert (sample(model, demo.clip, prompt) - sample(demo.model, demo.clip, prompt)).abs().max() > 0.1


@pytest.mark.parametrize(("count", "said"), [(0, "still there: 0% of the concept"), (128, "gone: ")])
def test_with_a_clip_an_ablation_ends_in_a_verdict(execute, demo, detect, count, said):
    neurons, _, _ = detect()
    _, report = execute("LoCo_NeuronAblate", model=demo.model, neurons=neurons, clip=demo.clip, count=count)
    assert report.startswith(said), report
    assert "; the rest is " in report.splitlines()[0]


def test_saved_neurons_are_loaded_as_they_were(execute, demo, sample, detect):
    neurons, _, _ = detect()
    (file,) = execute("LoCo_NeuronSave", neurons=neurons)
    assert file.startswith("loco_neurons/neurons_")
    loaded, report = execute("LoCo_NeuronLoad", file=file.removeprefix("loco_neurons/"))
    assert report.startswith("found for: a picture of a star in the style of woodcut and so on")
    models = [execute("LoCo_NeuronAblate", model=demo.model, neurons=one, count=64)[0] for one in (neurons, loaded)]
    one, other = (sample(model, demo.clip, "woodcut") for model in models)
    assert torch.equal(one, other)


@pytest.fixture(scope="module")
def compare(execute, demo, detect):
    """compare(node, ...) -> a node's outputs that makes images of woodcut and others, with few steps."""
    neurons, _, _ = detect()
    (scorer,) = execute("LoCo_CLIPScorer", file="loco_demo_clip.safetensors")
    wired = {"model": demo.model, "clip": demo.clip, "vae": demo.vae, "scorer": scorer, "neurons": neurons}
    prompts = {
        "concept_prompts": "a picture of a red star in the style of woodcut",
        "target_prompts": "a picture of a red star",
        "keep_prompts": "a picture of a blue fish in the style of halftone",
    }
    quick = {"seed_count": 1, "steps": 4, "cfg": 2.0, "width": 128, "height": 128}
    return lambda node_id, **asked: execute(node_id, **wired, **prompts, **quick, **asked)


@pytest.mark.slow
def test_a_sweep_gives_a_count_that_ablate_takes_and_shows_the_trade_off(execute, demo, detect, compare):
    neurons, _, _ = detect()
    count, plot, sheet, report = compare("LoCo_NeuronSweep", counts="16, 100%")
    assert count == 256  # 16 neurons leave the style as it is (test_demo_model.py and the README have such figures)
    assert "choose 256 of 256 neurons" in report
    assert all(picture.ndim == 4 and picture.shape[-1] == 3 for picture in (plot, sheet))
    model, _ = execute("LoCo_NeuronAblate", model=demo.model, neurons=neurons, count=count)
    assert model.wrappers["calc_cond_batch"]["loco_ablation"]


@pytest.mark.slow
def test_measured_effects_are_a_ranking_for_ablate_that_is_saved_and_loaded(execute, demo, sample, compare):
    neurons, plot, report = compare("LoCo_NeuronEffects", runs="16", rounds=1)
    assert "effects measured: effect and signal agree to" in report
    assert plot.ndim == 4 and plot.shape[-1] == 3
    (file,) = execute("LoCo_NeuronSave", neurons=neurons)
    loaded, _ = execute("LoCo_NeuronLoad", file=file.removeprefix("loco_neurons/"))
    chosen = {"count": 64, "rank_by": "effect"}
    models = [execute("LoCo_NeuronAblate", model=demo.model, neurons=one, **chosen)[0] for one in (neurons, loaded)]
    one, other = (sample(model, demo.clip, "woodcut") for model in models)
    assert torch.equal(one, other)


@pytest.mark.parametrize(("mode", "scale"), [("zero", 0.5), ("scale", 0.5)])
def test_ablated_neurons_are_a_lora_for_the_stock_loader(host, execute, demo, sample, detect, mode, scale):
    neurons, _, _ = detect()
    asked = {"model": demo.model, "neurons": neurons, "count": 64, "mode": mode, "scale": scale}
    file, _ = execute("LoCo_NeuronExportLoRA", **asked)
    name = file.removeprefix("loras/")
    loaded = host.nodes.LoraLoaderModelOnly().load_lora_model_only(demo.model, name, 1.0)[0]
    ablated, _ = execute("LoCo_NeuronAblate", **asked)
    prompt = "a red star in the style of woodcut"
    unablated, own, theirs = (sample(model, demo.clip, prompt) for model in (demo.model, ablated, loaded))
    assert (own - unablated).norm() > 0.05 * unablated.norm()
    # The LoRA's factors and the weights that it is added to are in float16.
    assert (own - theirs).norm() < 0.02 * (own - unablated).norm()
