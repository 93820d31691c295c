"""Clones that stand on another model than the node got, as Select Model Device, MultiGPU CFG Split, torch.compile and
dynamic VRAM make them: what acts on modules acts in the model that runs, and in no other.
"""

from __future__ import annotations

import importlib.util
import threading

import comfy.sample
import pytest
import torch

import nodes
from loco_core.models.layers import LayerSet

pytestmark = pytest.mark.slow

STYLED, PLAIN, NEGATIVE = "a picture of a red star in the style of woodcut", "a picture of a red star", ""
ALL = tuple(range(16))
# The largest difference from the reference, of its largest number: float32 sums in another order.
ROUNDING = 1e-4
# A difference that means something.
EFFECT = 0.1


@pytest.fixture
def loaded(host):
    """A demo model of its own: tests here break the first of two."""
    return host.nodes.CheckpointLoaderSimple().load_checkpoint("loco_demo.safetensors")


@pytest.fixture
def encode(loaded):
    return lambda prompt: nodes.CLIPTextEncode().encode(loaded[1], prompt)[0]


RUN_TIME = ["injection", "edit of context", "ablation of both", "ablation of positive"]


@pytest.fixture(params=["edit of weights", *RUN_TIME])
def change(request, loaded, encode, execute, inject_in, apply_edit):
    """change(model) -> the model with one change."""
    layers, clip = LayerSet((8, 9), 16), loaded[1]
    kind, _, how = request.param.partition(" of ")
    if kind == "injection":
        return lambda model: inject_in(model, encode(PLAIN), ALL)
    if kind == "edit":
        edit, _ = execute("LoCo_EditSolve", clip=clip, layers=layers, concept="woodcut", preserve="")
        return lambda model: apply_edit(model, edit, mode=how)
    asked = {"concept": "woodcut", "without": "a picture of a fish\na picture of a star\nhalftone"}
    neurons = execute("LoCo_NeuronDetect", model=loaded[0], clip=clip, layers=layers, **asked)[0]
    return lambda model: execute("LoCo_NeuronAblate", model=model, neurons=neurons, count=64, branch=how)[0]


@pytest.fixture
def changed(loaded, change):
    return change(loaded[0])


@torch.no_grad()
def sample(model, positive: list, negative: list) -> torch.Tensor:
    noise = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    arguments = (3, 2.0, "euler", "normal", positive, negative, torch.zeros_like(noise))
    return comfy.sample.sample(model, noise, *arguments, disable_pbar=True, seed=7)


def difference(one: torch.Tensor, other: torch.Tensor) -> float:
    return ((one - other).abs().max() / other.abs().max()).item()


def damage(model) -> None:
    """What this model holds must not matter to a clone on another."""
    for parameter in model.model.diffusion_model.parameters():
        parameter.data.zero_()


def test_a_clone_on_a_model_loaded_anew_is_changed_as_the_first_one(loaded, encode, changed):
    prompts = encode(STYLED), encode(NEGATIVE)
    expected, unchanged = sample(changed, *prompts), sample(loaded[0], *prompts)
    clone = changed.clone(force_deepcopy=True)
    assert clone.model is not loaded[0].model
    damage(loaded[0])
    assert difference(expected, unchanged) >= EFFECT
    assert difference(sample(clone, *prompts), expected) <= ROUNDING


def test_what_is_changed_in_a_clone_is_not_changed_in_the_model_afterwards(loaded, encode, changed):
    prompts = encode(STYLED), encode(NEGATIVE)
    unchanged = sample(loaded[0], *prompts)
    sample(changed, *prompts)
    del changed
    assert torch.equal(sample(loaded[0], *prompts), unchanged)


@pytest.mark.parametrize("change", RUN_TIME, indirect=True)
def test_a_compiled_unet_is_changed_as_another_and_is_as_it_was_afterwards(loaded, encode, change):
    """One that was compiled in place of the model's own before our node, not by the host's wrapper."""
    torch.compiler.reset()
    model, _, _ = loaded
    prompts = encode(STYLED), encode(NEGATIVE)
    expected, unchanged = sample(change(model), *prompts), sample(model, *prompts)
    fast = model.clone()
    fast.add_object_patch("diffusion_model", torch.compile(model.model.diffusion_model, backend="eager"))
    for _ in range(2):
        assert difference(sample(change(fast), *prompts), expected) <= ROUNDING
        assert difference(sample(fast, *prompts), unchanged) <= ROUNDING


@pytest.mark.parametrize("change", ["edit of weights"], indirect=True)
def test_weights_of_a_unet_that_another_node_compiled_are_refused(loaded, encode, change):
    """The host would leave their patches out without a word."""
    fast = loaded[0].clone()
    fast.add_object_patch("diffusion_model", torch.compile(loaded[0].model.diffusion_model, backend="eager"))
    with pytest.raises(ValueError, match="another node compiled it .* choose mode 'context'"):
        change(fast)


@pytest.mark.parametrize("change", ["edit of weights"], indirect=True)
def test_weights_are_changed_though_a_compiled_copy_of_the_model_is_loaded(loaded, encode, change):
    model, prompts = loaded[0], (encode(STYLED), encode(NEGATIVE))
    expected = sample(change(model), *prompts)
    fast = model.clone()
    fast.add_object_patch("diffusion_model", torch.compile(model.model.diffusion_model, backend="eager"))
    sample(fast, *prompts)
    assert difference(sample(change(model), *prompts), expected) <= ROUNDING


def test_two_models_sample_at_once_in_two_threads(loaded, encode, changed):
    """Each with the change in it or not, at its own time."""
    prompts = encode(STYLED), encode(NEGATIVE)
    other = loaded[0].clone(force_deepcopy=True)
    expected = {"changed": sample(changed, *prompts), "unchanged": sample(loaded[0], *prompts)}
    seen: dict[str, list[torch.Tensor]] = {"changed": [], "unchanged": []}
    guiders = {"changed": changed, "unchanged": other}
    threads = [
        threading.Thread(target=lambda name=name: seen[name].extend(sample(guiders[name], *prompts) for _ in range(2)))
        for name in seen
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(len(images) == 2 for images in seen.values())
    for name, images in seen.items():
        assert all(difference(image, expected[name]) <= ROUNDING for image in images)


@pytest.mark.skipif(importlib.util.find_spec("comfy.multigpu") is None, reason="the host has no MultiGPU yet")
def test_two_devices_share_the_conditionings_of_a_step(encode, changed):
    """As MultiGPU CFG Split has it, on two devices that are both the CPU; each works in a thread of its own."""
    multigpu = importlib.import_module("comfy.multigpu")
    prompts = encode(STYLED), encode(NEGATIVE)
    expected = sample(changed, *prompts)
    second = changed.deepclone_multigpu(new_load_device=torch.device("cpu", 0))
    second.is_multigpu_base_clone = True
    both = changed.clone()
    both.set_additional_models("multigpu", [second])
    both.match_multigpu_clones()
    multigpu.GPUOptionsGroup().register(both)
    threads = set()
    second.model.diffusion_model.register_forward_pre_hook(lambda *_: threads.add(threading.get_ident()))
    assert difference(sample(both, *prompts), expected) <= ROUNDING
    assert threads - {threading.get_ident()}
