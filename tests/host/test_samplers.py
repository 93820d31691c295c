"""In a batch of many images, each is what the stock sampler makes of its prompt and seed alone."""

from __future__ import annotations

import comfy.samplers
import pytest
import torch
from comfy.k_diffusion import sampling as k_diffusion

from loco_core.models.engine import Row, Sampling

pytestmark = pytest.mark.slow

STEPS, CFG = 4, 2.0
ANCESTRAL = [
    "euler_ancestral",
    "euler_ancestral_cfg_pp",
    "dpm_2_ancestral",
    "dpmpp_2s_ancestral",
    "dpmpp_2s_ancestral_cfg_pp",
    "res_multistep_ancestral",
    "res_multistep_ancestral_cfg_pp",
    "ddpm",
    "lcm",
]
SDE = [
    "dpmpp_sde",
    "dpmpp_sde_gpu",
    "dpmpp_2m_sde",
    "dpmpp_2m_sde_gpu",
    "dpmpp_2m_sde_heun",
    "dpmpp_2m_sde_heun_gpu",
    "dpmpp_3m_sde",
    "dpmpp_3m_sde_gpu",
    "er_sde",
    "exp_heun_2_x0_sde",
    "seeds_2",
    "seeds_3",
    "sa_solver",
    "sa_solver_pece",
]
# Take a noise sampler and draw nothing that shows.
WITHOUT = ["res_multistep", "res_multistep_cfg_pp", "dpm_fast"]


@pytest.fixture(scope="module")
def samplers(pack):
    return pack("nodes.host.samplers")


@pytest.fixture(scope="module")
def generate(engine_of, demo):
    """generate(sampler, [(prompt, seed), ...]) -> images."""
    engine = engine_of(demo.model, demo.clip, demo.vae)

    @torch.no_grad()
    def run(sampler: str, asked: list[tuple[str, int]]) -> torch.Tensor:
        embeddings = engine.encode([prompt for prompt, _ in asked])
        rows = [Row(embedding, seed) for embedding, (_, seed) in zip(embeddings, asked, strict=True)]
        return engine.generate(rows, Sampling(STEPS, CFG, sampler, "normal", 128, 128))

    return run


@pytest.fixture(scope="module")
def stock(host, demo):
    """stock(sampler, prompt, seed) -> the image of the stock KSampler and VAE Decode."""

    @torch.no_grad()
    def run(sampler: str, prompt: str, seed: int) -> torch.Tensor:
        positive, negative = (host.nodes.CLIPTextEncode().encode(demo.clip, text)[0] for text in (prompt, ""))
        latent = {"samples": torch.zeros(1, 4, 16, 16)}
        (out,) = host.nodes.common_ksampler(demo.model, seed, STEPS, CFG, sampler, "normal", positive, negative, latent)
        return demo.vae.decode(out["samples"]).cpu()

    return run


@pytest.mark.parametrize("sampler", ["euler", *ANCESTRAL, *SDE, *WITHOUT])
def test_each_image_of_a_batch_is_that_of_the_stock_sampler_alone(generate, stock, sampler):
    asked = [("a red star", 3), ("a blue fish in the style of woodcut", 4), ("a red star", 5)]
    together = generate(sampler, asked)
    for image, (prompt, seed) in zip(together, asked, strict=True):
        # Float32 sums in another batch shape, carried through the steps: below half a grey level of 255.
        torch.testing.assert_close(image[None], stock(sampler, prompt, seed), rtol=0, atol=2e-3)


@pytest.mark.parametrize("sampler", [*ANCESTRAL, *SDE])
def test_the_noise_of_the_steps_goes_by_the_seed_of_the_row(samplers, sampler):
    x, sigmas = torch.zeros(3, 4, 8, 8), torch.tensor([10.0, 5.0, 1.0, 0.0])
    draw = samplers._row_noise(sampler, x, sigmas, [7, 8, 7])
    noise = torch.stack([draw(sigmas[0], sigmas[1]), draw(sigmas[1], sigmas[2])])
    assert torch.equal(noise[:, 0], noise[:, 2])
    assert (noise[:, 0] - noise[:, 1]).std() > 1
    assert (noise[0] - noise[1]).std() > 1


def test_every_sampler_of_the_host_is_offered_but_the_one_that_looks_at_the_whole_batch(samplers):
    assert set(samplers.samplers()) == set(comfy.samplers.KSampler.SAMPLERS) - {"dpm_adaptive"}


def test_every_sampler_of_the_host_that_takes_noise_is_tried_here(samplers):
    taking = {name for name in comfy.samplers.KSampler.SAMPLERS if samplers._draws_noise(name)}
    assert taking == {*ANCESTRAL, *SDE, *WITHOUT, "dpm_adaptive"}


def test_another_packs_sampler_that_draws_noise_is_not_offered(samplers, monkeypatch):
    def foreign(model, x, sigmas, noise_sampler=None):
        return x

    monkeypatch.setattr(k_diffusion, "sample_foreign", foreign, raising=False)
    monkeypatch.setattr(comfy.samplers.KSampler, "SAMPLERS", ["euler", "foreign"])
    assert samplers.samplers() == ["euler"]
