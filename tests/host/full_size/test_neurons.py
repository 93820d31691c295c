"""Neurons of a full-size model: detected by its own text towers, ablated, exported, and in compiled code."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from comfy_extras.nodes_torch_compile import TorchCompileModel

from host.full_size.measures import agreement, relative, sample

# In one process: two full-size models do not fit into memory.
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("full size")]

THREE = pytest.mark.parametrize("family", ["sd15", "sd21", "sdxl"])
# Not a name: the node would measure whether the layers make it, which takes a processor minutes.
CONCEPT = "a cat in the style of Van Gogh\na house in the style of Van Gogh"
WITHOUT = "a photo of a cat\na painting of a house\nMonet"
PROMPT = "a painting of a house in the style of Van Gogh"
# Of the preset layers.
VALUES = {"sd15": 2 * 1280, "sd21": 2 * 1280 + 640, "sdxl": 3 * 1280}
# Of an ablation, the least share of the latent: differences from it mean something.
EFFECT = 1e-2


@pytest.fixture(scope="session")
def detect(execute):
    """detect(family, loaded) -> the neurons of the values of its preset style layers, found once per family."""
    known: dict[str, object] = {}

    def run(family, loaded):
        if family not in known:
            (layers, _) = execute("LoCo_LayerSelect", model=loaded.model, preset="style")
            asked = {"concept": CONCEPT, "without": WITHOUT}
            (known[family], *_) = execute(
                "LoCo_NeuronDetect", model=loaded.model, clip=loaded.clip, layers=layers, **asked
            )
        return known[family]

    return run


@pytest.fixture
def prompt(host, loaded):
    return host.nodes.CLIPTextEncode().encode(loaded.clip, PROMPT)[0]


@THREE
def test_half_of_the_neurons_ablated_to_zero_are_the_same_at_run_time_in_the_weights_and_as_a_lora(
    host, execute, detect, prompt, loaded, family
):
    neurons = detect(family, loaded)
    assert neurons.count == VALUES[family]
    chosen = {"neurons": neurons, "count": neurons.count // 2, "mode": "zero"}
    models = [
        execute("LoCo_NeuronAblate", model=loaded.model, apply=way, **chosen)[0] for way in ("run time", "weights")
    ]
    name, _ = execute("LoCo_NeuronExportLoRA", model=loaded.model, filename_prefix="loras/full_size", **chosen)
    path = Path(host.folder_paths.get_output_directory()) / name
    host.folder_paths.add_model_folder_path("loras", str(path.parent))
    models.append(host.nodes.LoraLoaderModelOnly().load_lora_model_only(loaded.model, path.name, 1.0)[0])
    agreed = agreement(*(sample(model, prompt) for model in (loaded.model, *models)))
    assert agreed.effect >= EFFECT
    assert agreed.difference <= 5e-3  # the LoRA's factors are in float16


@THREE
def test_means_change_the_image_and_none_leaves_it_as_it_is(execute, detect, prompt, loaded, family):
    neurons, unablated = detect(family, loaded), sample(loaded.model, prompt)
    half, none = (
        execute("LoCo_NeuronAblate", model=loaded.model, neurons=neurons, count=count)[0]
        for count in (neurons.count // 2, 0)
    )
    assert relative(sample(half, prompt) - unablated, unablated) >= EFFECT
    assert torch.equal(sample(none, prompt), unablated)


@pytest.mark.parametrize("family", ["sd15"])
@pytest.mark.parametrize("branch", ["both", "positive"])
def test_a_compiled_model_is_ablated_as_another(execute, detect, prompt, loaded, family, branch):
    """After it ran without the ablation, too: the host lets compiled code live on when patches come and go."""
    torch.compiler.reset()
    fast = TorchCompileModel.execute(loaded.model, "eager").result[0]
    neurons, unablated = detect(family, loaded), sample(loaded.model, prompt)

    def ablate(model):
        asked = {"neurons": neurons, "count": neurons.count // 2, "branch": branch}
        return execute("LoCo_NeuronAblate", model=model, **asked)[0]

    expected = sample(ablate(loaded.model), prompt)
    tolerance = 1e-3 * relative(expected - unablated, unablated)  # float32 sums in another order
    assert tolerance > 0
    assert relative(sample(fast, prompt) - unablated, unablated) <= tolerance
    assert relative(sample(ablate(fast), prompt) - expected, unablated) <= tolerance
