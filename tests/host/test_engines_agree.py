"""The two engines, written against two programs that share no code, do the same to the same model."""

from __future__ import annotations

from dataclasses import replace

import comfy.sample
import comfy.samplers
import comfy.sd
import comfy.utils
import pytest
import torch

pytest.importorskip("diffusers")

import nodes
from loco_core.diffusers_host.demo_model import demo_pipeline
from loco_core.diffusers_host.engine import DiffusersEngine
from loco_core.editing.lora import edit_lora
from loco_core.editing.solve import solve_edit
from loco_core.lora_file import save_lora
from loco_core.models.engine import Intervention, Row, Sampling
from loco_core.models.layers import LayerSet, Part
from made_up import recipe

pytestmark = pytest.mark.slow

OWN, OTHER = "a picture of a red star in the style of woodcut", "a picture of a blue fish"
GUIDANCE = 2.0
SAMPLING = Sampling(20, GUIDANCE, "euler", "linspace", 128, 128)
# Whole timesteps, which both programs know.
STEPS = tuple(range(999, 0, -62))


@pytest.fixture(scope="module")
def diffusers_engine() -> DiffusersEngine:
    return DiffusersEngine(demo_pipeline())


@pytest.fixture(scope="module")
def comfy_engine(engine_of, demo):
    return engine_of(demo.model, demo.clip, demo.vae)


@pytest.fixture(scope="module")
def sigmas(demo) -> torch.Tensor:
    """ComfyUI's noise levels at STEPS, then zero."""
    return torch.cat([demo.model.get_model_object("model_sampling").sigmas[list(STEPS)], torch.zeros(1)])


def noise() -> torch.Tensor:
    return torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(3))


@torch.no_grad()
def by_comfy(model, clip, sigmas: torch.Tensor) -> torch.Tensor:
    """Latents after Euler steps through the noise levels."""
    positive, negative = (nodes.CLIPTextEncode().encode(clip, prompt)[0] for prompt in (OWN, ""))
    sampler, empty = comfy.samplers.sampler_object("euler"), torch.zeros(1, 4, 16, 16)
    latents = comfy.sample.sample_custom(
        model, noise(), GUIDANCE, sampler, sigmas, positive, negative, empty, disable_pbar=True, seed=3
    )
    return latents * demo_scale(model)


def demo_scale(model) -> float:
    """ComfyUI hands out latents divided by this."""
    return model.get_model_object("latent_format").scale_factor


@torch.no_grad()
def by_diffusers(engine: DiffusersEngine, sigmas: torch.Tensor, intervention: Intervention | None = None):
    """The same steps, written out; the first noise scaled as ComfyUI scales it for the highest noise level."""
    own, negative = engine.encode([OWN, ""])
    x = noise() * (1 + sigmas[0] ** 2).sqrt()
    for step, (sigma, following) in enumerate(zip(sigmas[:-1], sigmas[1:], strict=True)):
        spread = (sigma**2 + 1).sqrt()
        velocity = engine.denoiser_output(
            x / spread, torch.tensor(STEPS[step]), [Row(own, 0, intervention)], negative, SAMPLING
        )
        denoised = x / spread**2 - velocity * sigma / spread
        x = x + (x - denoised) / sigma * (following - sigma)
    return x


def relative(one: torch.Tensor, other: torch.Tensor) -> float:
    return (torch.linalg.norm(one - other) / torch.linalg.norm(other)).item()


def test_they_encode_a_prompt_alike(comfy_engine, diffusers_engine):
    one, other = comfy_engine.encode([OWN])[0], diffusers_engine.encode([OWN])[0]
    assert one.chunks == other.chunks
    assert relative(one.tokens, other.tokens) <= 1e-5


def test_they_number_the_same_layers_with_the_same_weights(comfy_engine, diffusers_engine):
    assert [str(layer) for layer in comfy_engine.layers] == [str(layer) for layer in diffusers_engine.layers]
    for index in range(16):
        pairs = zip(comfy_engine.key_value_weights(index), diffusers_engine.key_value_weights(index), strict=True)
        assert all(torch.equal(one, other) for one, other in pairs)


@pytest.mark.parametrize("step", [0, 5, 10, 15])
def test_one_call_of_the_denoiser_gives_the_same(demo, diffusers_engine, sigmas, step):
    def denoised(model, x, given, extra_args=None, **_):
        return model(x, given[:1], **extra_args)

    positive, negative = (nodes.CLIPTextEncode().encode(demo.clip, prompt)[0] for prompt in (OWN, ""))
    sampler, sigma = comfy.samplers.KSAMPLER(denoised), sigmas[step : step + 1]
    with torch.no_grad():
        expected = comfy.sample.sample_custom(
            demo.model, noise(), GUIDANCE, sampler, sigma, positive, negative, torch.zeros(1, 4, 16, 16)
        ) * demo_scale(demo.model)
    own, empty = diffusers_engine.encode([OWN, ""])
    at_start = step == 0  # ComfyUI scales the noise otherwise at the highest noise level
    spread = (sigma**2 + 1).sqrt()
    x = noise() * (spread if at_start else sigma)
    velocity = diffusers_engine.denoiser_output(x / spread, torch.tensor(STEPS[step]), [Row(own, 0)], empty, SAMPLING)
    assert relative(x / spread**2 - velocity * sigma / spread, expected) <= 1e-4


@pytest.mark.parametrize("step", [0, 6, 12, 18])
def test_they_predict_the_same_from_the_same_latents(comfy_engine, diffusers_engine, step):
    """ComfyUI's scheduler "simple" and diffusers' "trailing" have the same noise levels."""
    one, other = (replace(SAMPLING, scheduler=name) for name in ("simple", "trailing"))
    (latents,) = diffusers_engine.latents_at([Row(diffusers_engine.encode([OWN])[0], 0)], other, [step])
    predicted = []
    for engine, sampling in ((comfy_engine, one), (diffusers_engine, other)):
        own, target = engine.encode([OWN, OTHER])
        rows = [Row(own, 0), Row(own, 0, Intervention(LayerSet((8, 9), 16), target)), Row(target, 0)]
        predicted.append(engine.predict(rows, latents.expand(3, -1, -1, -1), sampling, step))
    assert relative(*predicted) <= 1e-4
    assert relative(predicted[0][1], predicted[0][0]) > 1e-2


def test_they_pass_the_same_latents(comfy_engine, diffusers_engine):
    """Apart from the first noise, which ComfyUI scales by 0.2 % more."""
    one, other = (replace(SAMPLING, scheduler=name) for name in ("simple", "trailing"))
    passed = [
        engine.latents_at([Row(engine.encode([OWN])[0], 0)], sampling, [0, 6, 12])
        for engine, sampling in ((comfy_engine, one), (diffusers_engine, other))
    ]
    for step in range(3):
        assert relative(*(latents[:, step] for latents in passed)) <= 1e-2


def test_they_go_on_alike_from_the_same_latents(comfy_engine, diffusers_engine):
    one, other = (replace(SAMPLING, scheduler=name) for name in ("simple", "trailing"))
    (begun,) = diffusers_engine.latents_at([Row(diffusers_engine.encode([OWN])[0], 0)], other, [6])
    passed = [
        engine.latents_at([Row(engine.encode([OWN])[0], 0)], sampling, [6, 12], begun=begun)
        for engine, sampling in ((comfy_engine, one), (diffusers_engine, other))
    ]
    assert relative(*(latents[:, 1] for latents in passed)) <= 1e-4
    assert relative(passed[0][:, 1], passed[0][:, 0]) > 1e-2


@pytest.mark.parametrize(
    ("layer", "part"),
    [*((layer, Part.BOTH) for layer in range(16)), (8, Part.KEYS), (8, Part.VALUES), (9, Part.VALUES)],
)
def test_an_intervention_at_each_layer_has_the_same_effect(inject_in, demo, diffusers_engine, sigmas, layer, part):
    other = nodes.CLIPTextEncode().encode(demo.clip, OTHER)[0]
    injected = inject_in(demo.model, other, (layer,), part)
    some = torch.cat([sigmas[:3], sigmas[-1:]])
    effect = by_comfy(injected, demo.clip, some) - by_comfy(demo.model, demo.clip, some)
    intervention = Intervention(LayerSet((layer,), 16), diffusers_engine.encode([OTHER])[0], part)
    same = by_diffusers(diffusers_engine, some, intervention) - by_diffusers(diffusers_engine, some)
    assert effect.norm() > 1e-3
    assert relative(same, effect) <= 1e-3


@pytest.fixture(scope="module")
def edit(diffusers_engine):
    return solve_edit(diffusers_engine.encode, recipe(["woodcut", "a picture in the style of woodcut"]))


def image_difference(engine, one: torch.Tensor, other: torch.Tensor) -> float:
    """The mean difference of the decoded images, in grey levels of 255."""
    return 255 * (engine.decode(one) - engine.decode(other)).abs().mean().item()


def test_an_edit_exported_by_either_gives_the_same_image_in_the_other(
    apply_edit, demo, comfy_engine, diffusers_engine, edit, sigmas, tmp_path
):
    unedited = by_diffusers(diffusers_engine, sigmas)
    with diffusers_engine.edited(edit):
        edited_there = by_diffusers(diffusers_engine, sigmas)
    edited_here = by_comfy(apply_edit(demo.model, edit), demo.clip, sigmas)
    files = {}
    for name, engine in (("comfy", comfy_engine), ("diffusers", diffusers_engine)):
        files[name] = tmp_path / f"{name}.safetensors"
        save_lora(edit_lora(edit, engine.layers, engine.key_value_weights), files[name], engine.layers, {})

    loaded, _ = comfy.sd.load_lora_for_models(
        demo.model, None, comfy.utils.load_torch_file(str(files["diffusers"])), 1.0, 0
    )
    in_comfy = by_comfy(loaded, demo.clip, sigmas)
    pipeline = diffusers_engine._pipeline
    pipeline.load_lora_weights(str(files["comfy"]))
    try:
        in_diffusers = by_diffusers(diffusers_engine, sigmas)
    finally:
        pipeline.unload_lora_weights()
    assert image_difference(diffusers_engine, edited_there, unedited) > 10
    assert image_difference(diffusers_engine, in_comfy, edited_there) <= 1
    assert image_difference(diffusers_engine, in_diffusers, edited_here) <= 1
    assert relative(by_diffusers(diffusers_engine, sigmas), unedited) == 0
