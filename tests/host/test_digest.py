"""Models told apart by what their images depend on."""

from __future__ import annotations

import functools
import gc
import weakref

import comfy.sample
import numpy as np
import pytest
import torch
from comfy_api.torch_helpers import set_torch_compile_wrapper
from comfy_extras.nodes_model_advanced import ModelSamplingDiscrete
from comfy_extras.nodes_torch_compile import skip_torch_compile_dict

from loco_core.editing.solve import solve_edit
from loco_core.models.layers import Part
from loco_core.neurons.ablation import Replacement
from made_up import recipe


class Wrapper:
    """Calls the denoiser and multiplies what it says."""

    def __init__(self, value: float) -> None:
        self.value = value

    def __call__(self, executor, *arguments, **options):
        return self.value * executor(*arguments, **options)


def compiled_by_the_host(model):
    """As TorchCompileModel does it: in place only while the model runs."""
    options = {"guard_filter_fn": skip_torch_compile_dict}
    set_torch_compile_wrapper(model=model, backend="eager", options=options)


def compiled_in_place(model):
    model.add_object_patch("diffusion_model", torch.compile(model.get_model_object("diffusion_model"), backend="eager"))


def sample(host, demo, model) -> None:
    prompt = host.nodes.CLIPTextEncode().encode(demo.clip, "a star")[0]
    latent = torch.zeros(1, 4, 16, 16)
    comfy.sample.sample(model, latent, 1, 2.0, "euler", "normal", prompt, prompt, latent, disable_pbar=True)


def closure(value: int):
    return lambda x: (x, value)


@pytest.fixture(scope="module")
def digest(pack, demo):
    return lambda model: pack("nodes.host.digest").model_digest(model, demo.clip, demo.vae)


@pytest.fixture(scope="module")
def changes(host, pack, demo, encoder, inject_in, apply_edit, scope):
    """Models with what other nodes put onto them, by what it is."""
    conditioning = {text: host.nodes.CLIPTextEncode().encode(demo.clip, text)[0] for text in ("a fish", "a star")}

    def injected(text: str, strength: float = 1.0):
        return inject_in(demo.model, conditioning[text], (8, 9), strength=strength)

    def edited(concept: str, mode: str):
        return apply_edit(demo.model, solve_edit(encoder(demo.clip), recipe([concept])), mode=mode)

    def ablated(branch: str):
        change = {(8, Part.VALUES): Replacement(torch.tensor([1]), 0.0, torch.zeros(1))}
        known = pack("nodes.host.layers").read_layers(demo.model)
        return pack("nodes.host.ablation").ablate(demo.model, known, change, scope(branch, 0.0, 0.7))

    def predicting(what: str):
        return ModelSamplingDiscrete().patch(demo.model, what, False)[0]

    def wrapped(value: float):
        model = demo.model.clone()
        model.add_wrapper("diffusion_model", Wrapper(value))
        return model

    def with_closures(*values: int):
        model = demo.model.clone()
        model.model_options["functions"] = [closure(value) for value in values]
        return model

    def with_partial(value: int):
        model = demo.model.clone()
        model.model_options["function"] = functools.partial(closure, value)
        return model

    def with_option(value: object):
        model = demo.model.clone()
        model.model_options["option"] = value
        return model

    def with_body(body: str):
        module: dict = {}
        exec(f"def act(x):\n    return {body}", module)  # noqa: S102 - the body stands in this test
        return with_option(module["act"])

    def array(last: float):
        return with_option(np.append(np.zeros(4999), last))

    return {
        "injected": lambda: injected("a fish"),
        "injected another prompt": lambda: injected("a star"),
        "injected by half": lambda: injected("a fish", 0.5),
        "edited": lambda: edited("woodcut", "weights"),
        "edited otherwise": lambda: edited("halftone", "weights"),
        "edited in context": lambda: edited("woodcut", "context"),
        "ablated": lambda: ablated("positive"),
        "ablated elsewhere": lambda: ablated("negative"),
        "eps": lambda: predicting("eps"),
        "v_prediction": lambda: predicting("v_prediction"),
        "wrapped": lambda: wrapped(1.0),
        "wrapped otherwise": lambda: wrapped(2.0),
        "three closures": lambda: with_closures(1, 2, 3),
        "three other closures": lambda: with_closures(1, 2, 4),
        "a partial": lambda: with_partial(1),
        "another partial": lambda: with_partial(2),
        "a long array": lambda: array(0.0),
        "a long array with another value": lambda: array(1.0),
        "a function": lambda: with_body("x + 1"),
        "a function with another body": lambda: with_body("x + 2"),
        "a set": lambda: with_option(set("abc")),
        "another set": lambda: with_option(set("abd")),
    }


def test_the_same_nodes_on_the_same_checkpoint_loaded_again_give_the_same_digest(host, demo, digest, changes):
    again = host.nodes.CheckpointLoaderSimple().load_checkpoint("loco_demo.safetensors")[0]
    assert digest(again) == digest(demo.model)
    for change in changes.values():
        assert digest(change()) == digest(change())


@pytest.mark.parametrize("name", ["injected", "edited", "edited in context", "ablated", "v_prediction", "wrapped"])
def test_a_model_that_has_sampled_has_the_digest_of_one_that_has_not(host, demo, digest, changes, name):
    """The host patches weights and modules in place, and takes them out only when it loads another model."""
    model = changes[name]()
    before = digest(model)
    sample(host, demo, model)
    assert digest(model) == digest(changes[name]()) == before


@pytest.mark.slow
@pytest.mark.parametrize("compiles", [compiled_by_the_host, compiled_in_place])
@pytest.mark.parametrize("change", ["injected", "edited"])
def test_a_compiled_model_that_has_sampled_has_the_digest_of_one_that_has_not(
    host, demo, digest, changes, change, compiles
):
    """What torch keeps of the compiled code is of no account; what else is put onto the model is."""
    torch.compiler.reset()
    model, again = changes[change](), changes[change]()
    compiles(model)
    compiles(again)
    before = digest(model)
    sample(host, demo, model)
    assert digest(model) == digest(again) == before
    assert before != digest(changes[change]())


@pytest.fixture
def runs(pack, monkeypatch) -> list[weakref.ref]:
    """Every run from now on."""
    branches, noted = pack("nodes.host.branches"), []
    run_class = branches.Run

    def note(*arguments):
        run = run_class(*arguments)
        noted.append(weakref.ref(run))
        return run

    monkeypatch.setattr(branches, "Run", note)
    return noted


@pytest.mark.parametrize("name", ["injected", "edited in context"])
def test_what_a_patch_keeps_lasts_as_long_as_the_sampling(host, demo, changes, runs, name):
    kept = []

    def note_kept(*_) -> None:
        kept.append([weakref.ref(tensor) for tensor in runs[-1]().prepared.values()])

    model, latent = changes[name](), torch.zeros(1, 4, 16, 16)
    prompt = host.nodes.CLIPTextEncode().encode(demo.clip, "a star")[0]
    for _ in range(2):
        arguments = (model, latent, 3, 2.0, "euler", "normal", prompt, prompt, latent)
        comfy.sample.sample(*arguments, disable_pbar=True, callback=note_kept)
    gc.collect()
    first, second, third, *_ = kept
    assert len(first) == len(second) == len(third) > 0  # prepared in the first step, for all steps
    assert len(runs) == 2
    assert not any(reference() is not None for reference in (*runs, *(one for step in kept for one in step)))


def test_nothing_of_a_run_is_left_after_an_ablation(host, demo, changes, runs):
    """A run's options lead to the model, which would stay in memory."""
    model, latent = changes["ablated"](), torch.zeros(1, 4, 16, 16)
    prompt = host.nodes.CLIPTextEncode().encode(demo.clip, "a star")[0]
    comfy.sample.sample(model, latent, 1, 2.0, "euler", "normal", prompt, prompt, latent, disable_pbar=True)
    gc.collect()
    assert [run() for run in runs] == [None]


def test_what_other_nodes_have_changed_is_another_model(demo, digest, changes):
    digests = [digest(demo.model), *(digest(change()) for change in changes.values())]
    assert len(set(digests)) == len(digests)


def test_one_changed_weight_tensor_is_another_model(demo, digest):
    weight = next(demo.model.model.diffusion_model.parameters())
    before = digest(demo.model)
    with torch.no_grad():
        own = weight.clone()
        weight.mul_(1.5)
    try:
        assert digest(demo.model) != before
    finally:
        with torch.no_grad():
            weight.copy_(own)
    assert digest(demo.model) == before
