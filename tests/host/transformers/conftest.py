"""Narrow transformers, made once, and the stock nodes' sampling of them."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
from comfy.model_patcher import ModelPatcher

from host.transformers import narrow

MAKERS = {"anima": narrow.anima_model, "cosmos": narrow.cosmos_model}
_made: dict[str, SimpleNamespace] = {}


@pytest.fixture(params=MAKERS)
def narrow_model(host, request) -> SimpleNamespace:
    """model, clip and vae of a family."""
    if request.param not in _made:
        _made[request.param] = MAKERS[request.param]()
    return _made[request.param]


@pytest.fixture(scope="module", params=narrow.JOINT)
def family(host, request) -> str:
    """One of those whose blocks get the text as other parts have changed it."""
    return request.param


@pytest.fixture(scope="module")
def model(family) -> ModelPatcher:
    return narrow.joint_model(family)


@pytest.fixture(scope="session")
def encoded(host) -> Callable[..., list]:
    """encoded(clip, prompt) -> the conditioning of the stock node."""
    return lambda clip, prompt: host.nodes.CLIPTextEncode().encode(clip, prompt)[0]


@pytest.fixture(scope="session")
def sampled(host) -> Callable[..., torch.Tensor]:
    """sampled(model, positive, negative, ...) -> latents [B, C, 1, side, side], by the stock sampler."""

    @torch.inference_mode()
    def run(
        model: ModelPatcher, positive: list, negative: list, cfg: float = 1.0, batch: int = 1, side: int = 8
    ) -> torch.Tensor:
        latent = {"samples": torch.zeros(batch, 16, 1, side, side)}
        (out,) = host.nodes.common_ksampler(model, 0, 2, cfg, "euler", "normal", positive, negative, latent)
        return out["samples"]

    return run
