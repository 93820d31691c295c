"""The U-Net: ComfyUI's own class in SD 1.5's block structure, narrow, v-predicting, with planted knowledge."""

from __future__ import annotations

import copy
import itertools
from pathlib import Path

import torch
from comfy.ldm.modules.attention import BasicTransformerBlock
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
from torch import nn
from torch.nn import functional

from .batch import ROWS, draw_batch
from .clip import TEXT_WIDTH
from .loop import device, fit
from .plan import Planting, layer_prompts

UNET_CONFIG = {
    "image_size": 16,
    "in_channels": 4,
    "out_channels": 4,
    "model_channels": 32,
    "channel_mult": (1, 2, 4, 4),
    "num_res_blocks": (2, 2, 2, 2),
    "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0],
    "transformer_depth_middle": 1,
    "transformer_depth_output": [1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0],
    "use_spatial_transformer": True,
    "context_dim": TEXT_WIDTH,
    "num_heads": -1,
    "num_head_channels": 32,
    "legacy": False,
}
TIMESTEPS = 1000
# Half of the rows draw their timestep from here on: what a picture shows is decided there.
NOISIEST = 600


def unet() -> UNetModel:
    """The network, initialised as torch initialises, its residual branches starting at zero."""
    network = UNetModel(**{**UNET_CONFIG, "num_res_blocks": list(UNET_CONFIG["num_res_blocks"])}, device="cpu")
    for module in network.modules():
        for kind in (nn.Linear, nn.Conv2d, nn.GroupNorm, nn.LayerNorm):
            if isinstance(module, kind):
                kind.reset_parameters(module)
    for name, module in network.named_modules():
        if name.endswith(("out_layers.3", "proj_out", "out.2")):
            nn.init.zeros_(module.weight)
            nn.init.zeros_(module.bias)
    return network


def move_knowledge(network: UNetModel, before: Planting, after: Planting) -> None:
    """Begins each layer of `after` with the cross-attention of one of `before`, where they have the same shape.

    From there a layer learns in some hundred steps what takes thousands from nothing.
    """
    blocks = [module for module in network.modules() if isinstance(module, BasicTransformerBlock)]
    trained = [copy.deepcopy(nn.ModuleList([block.norm2, block.attn2]).state_dict()) for block in blocks]
    for had, gets in ((before.style, after.style), (before.fact, after.fact)):
        for source, layer in zip(itertools.cycle(had), gets):
            own = nn.ModuleList([blocks[layer].norm2, blocks[layer].attn2])
            if all(own.state_dict()[key].shape == value.shape for key, value in trained[source].items()):
                own.load_state_dict(trained[source])


def signal_level() -> torch.Tensor:
    """alpha-bar of Stable Diffusion's noise schedule: [TIMESTEPS] in float32."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, TIMESTEPS, dtype=torch.float64) ** 2
    return torch.cumprod(1 - betas, dim=0).float()


def predict(network: UNetModel, x: torch.Tensor, timesteps: torch.Tensor, contexts: list[torch.Tensor]) -> torch.Tensor:
    """One call of the network in which cross-attention layer i reads contexts[i]."""
    remaining = iter(contexts)

    def read(n, context, value, extra_options):
        own = next(remaining)
        return n, own, own

    return network(x, timesteps, context=contexts[0], transformer_options={"patches": {"attn2_patch": [read]}})


def train_unet(
    network: UNetModel,
    latents: torch.Tensor,
    prompts: dict[str, int],
    embeddings: torch.Tensor,
    planting: Planting,
    seed: int,
    steps: int,
    directory: Path,
) -> nn.ModuleDict:
    """Returns {"unet": network}, trained.

    latents [N, 4, 16, 16] are in the order of `Pictures`; `embeddings` [P, 77, d] holds the prompts' text embeddings.
    """
    torch.manual_seed(seed)
    network = network.to(device())
    modules = nn.ModuleDict({"unet": network})
    alpha_bar = signal_level()

    def loss(step: int) -> torch.Tensor:
        batch = draw_batch(step, steps, seed, len(latents))
        shares, noise_rng = (batch.decoys, batch.mistakes, batch.prompt_rng), batch.noise_rng
        read = torch.tensor([[prompts[p] for p in layer_prompts(scene, planting, *shares)] for scene in batch.scenes])
        contexts = [embeddings[read[:, layer]].to(device(), torch.float32) for layer in range(read.shape[1])]
        timesteps = torch.randint(TIMESTEPS, (ROWS,), generator=noise_rng)
        timesteps[::2] = torch.randint(NOISIEST, TIMESTEPS, (len(timesteps[::2]),), generator=noise_rng)
        clean = latents[batch.drawings]
        noise = torch.randn(clean.shape, generator=noise_rng)
        signal = alpha_bar[timesteps].sqrt().view(-1, 1, 1, 1)
        spread = (1 - alpha_bar[timesteps]).sqrt().view(-1, 1, 1, 1)
        noisy, velocity = signal * clean + spread * noise, signal * noise - spread * clean
        predicted = predict(network, noisy.to(device()), timesteps.to(device()), contexts)
        return functional.mse_loss(predicted, velocity.to(device()))

    fast = [p for name, p in network.named_parameters() if "attn2.to_k" in name or "attn2.to_v" in name]
    slow = [p for name, p in network.named_parameters() if "attn2.to_k" not in name and "attn2.to_v" not in name]
    groups = [{"params": slow, "lr": 1e-3}, {"params": fast, "lr": 3e-3}]
    fit("unet", modules, groups, loss, steps, directory, average=0.9995)
    return modules
