"""The host's samplers for batches whose rows are images of their own.

Ancestral and SDE samplers add noise at every step. The host draws it for a whole batch by one seed, so that an image
depends on its neighbours. Here each row draws what the host would draw for it alone, by the row's own seed.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence

import comfy.model_management
import comfy.samplers
import torch
from comfy.k_diffusion import sampling as k_diffusion

# (sigma, next sigma) -> noise of the latents' shape; what k-diffusion calls a noise sampler.
Noise = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]

# Asks for noise, but the host runs it with none and takes no noise sampler for it.
NOISELESS = {"dpm_fast"}
# Chooses its steps by the error of the whole batch: an image depends on its neighbours whatever the noise.
WHOLE_BATCH = {"dpm_adaptive"}


def samplers() -> list[str]:
    """The host's samplers under which an image does not depend on its neighbours in the batch.

    Another pack's samplers are left out: they may draw noise, and not as the host's do.
    """
    return [name for name in comfy.samplers.KSampler.SAMPLERS if name not in WHOLE_BATCH and _is_the_hosts(name)]


def _is_the_hosts(name: str) -> bool:
    function = _function(name)
    return function is None or function.__module__ == k_diffusion.__name__


def row_sampler(name: str, seeds: Sequence[int]) -> comfy.samplers.Sampler:
    """The host's sampler, for a batch of one row per seed, each with noise of its own."""
    if name in NOISELESS or not _draws_noise(name):
        return comfy.samplers.sampler_object(name)

    def sample(model: torch.nn.Module, x: torch.Tensor, sigmas: torch.Tensor, **options) -> torch.Tensor:
        return _function(name)(model, x, sigmas, noise_sampler=_row_noise(name, x, sigmas, seeds), **options)

    return comfy.samplers.KSAMPLER(sample)


class EulerPath:
    """A sampler that goes by Euler's method, notes what it is at before the given steps, and ends with the last one.

    begun: what it is at before the first of the steps [N, C, h, w]; without it, it begins with noise, before step 0.
    latents: [N, C, h, w] on the CPU for each of the steps, once it has run.
    """

    def __init__(self, steps: Sequence[int], begun: torch.Tensor | None = None) -> None:
        self._steps, self._begun = steps, begun
        self.latents: list[torch.Tensor] = []

    def of_the_host(self) -> comfy.samplers.Sampler:
        return comfy.samplers.KSAMPLER(self._sample)

    def _sample(self, model: torch.nn.Module, x: torch.Tensor, sigmas: torch.Tensor, extra_args: dict, callback, **_):
        first, last = 0, max(self._steps)
        if self._begun is not None:
            first, x = min(self._steps), self._begun.to(x)
        passed = {first: x.cpu()}
        for step in range(first, last):
            sigma = sigmas[step]
            denoised = model(x, sigma * x.new_ones(len(x)), **extra_args)
            callback({"x": x, "i": step, "sigma": sigma, "sigma_hat": sigma, "denoised": denoised})
            x = x + (x - denoised) * (sigmas[step + 1] / sigma - 1)
            passed[step + 1] = x.cpu()
        self.latents = [passed[step] for step in self._steps]
        return x


def one_prediction(latents: torch.Tensor, step: int) -> comfy.samplers.Sampler:
    """A sampler that gives what the model predicts for `latents` [N, C, h, w] at a step's noise level."""

    def sample(model: torch.nn.Module, x: torch.Tensor, sigmas: torch.Tensor, extra_args: dict, **_) -> torch.Tensor:
        comfy.model_management.throw_exception_if_processing_interrupted()
        return model(latents.to(x), sigmas[step] * x.new_ones(len(x)), **extra_args)

    return comfy.samplers.KSAMPLER(sample)


def _function(name: str) -> Callable | None:
    return getattr(k_diffusion, f"sample_{name}", None)


def _draws_noise(name: str) -> bool:
    function = _function(name)
    return function is not None and "noise_sampler" in inspect.signature(function).parameters


def _row_noise(name: str, x: torch.Tensor, sigmas: torch.Tensor, seeds: Sequence[int]) -> Noise:
    """Noise for the rows of `x`: of each, what the host's sampler would draw for that row alone."""
    if name.startswith("dpmpp") and "_sde" in name:  # their intervals overlap: a Brownian path, not independent draws
        low, high, on_cpu = sigmas[sigmas > 0].min(), sigmas.max(), not name.endswith("_gpu")
        own = [
            k_diffusion.BrownianTreeNoiseSampler(row[None], low, high, seed=seed, cpu=on_cpu)
            for row, seed in zip(x, seeds, strict=True)
        ]
    else:
        own = [k_diffusion.default_noise_sampler(row[None], seed=seed) for row, seed in zip(x, seeds, strict=True)]
    return lambda sigma, sigma_next: torch.cat([draw(sigma, sigma_next) for draw in own])
