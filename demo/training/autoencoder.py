"""The VAE: the TAESD architecture (github.com/madebyollin/taesd), which ComfyUI recognises by its keys.

TAESD has 64 channels everywhere. This world needs no more than 32, so the network is trained narrow and then placed
in the wide one with zeros around it, which computes the same: a quarter of the training time.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional

from .loop import device, fit
from .pictures import Pictures

LATENT_CHANNELS = 4
WIDTH, TAESD_WIDTH = 32, 64
# What SD 1.5's latent format multiplies by; TAESD's `vae_scale` undoes it, so that the U-Net sees unit variance.
LATENT_SCALE = 0.18215
# Noise on the latents in training: the decoder must not mind the small errors of a generated latent.
LATENT_NOISE = 0.15


class Clamp(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 3 * torch.tanh(x / 3)


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        first, second, third = (nn.Conv2d(width, width, 3, padding=1) for _ in range(3))
        self.conv = nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), third)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.relu(x + self.conv(x))


def encoder(width: int) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Conv2d(3, width, 3, padding=1), Block(width)]
    for _ in range(3):
        layers += [nn.Conv2d(width, width, 3, stride=2, padding=1, bias=False), *(Block(width) for _ in range(3))]
    return nn.Sequential(*layers, nn.Conv2d(width, LATENT_CHANNELS, 3, padding=1))


def decoder(width: int) -> nn.Sequential:
    layers: list[nn.Module] = [Clamp(), nn.Conv2d(LATENT_CHANNELS, width, 3, padding=1), nn.ReLU()]
    for _ in range(3):
        layers += [*(Block(width) for _ in range(3)), nn.Upsample(scale_factor=2)]
        layers += [nn.Conv2d(width, width, 3, padding=1, bias=False)]
    return nn.Sequential(*layers, Block(width), nn.Conv2d(width, 3, 3, padding=1))


def train_autoencoder(pictures: Pictures, seed: int, steps: int, directory: Path) -> nn.ModuleDict:
    """Returns the trained pair {"taesd_encoder", "taesd_decoder"}, WIDTH channels wide."""
    torch.manual_seed(seed)
    modules = nn.ModuleDict({"taesd_encoder": encoder(WIDTH), "taesd_decoder": decoder(WIDTH)}).to(device())
    modules = modules.to(memory_format=torch.channels_last)

    def loss(step: int) -> torch.Tensor:
        rng = torch.Generator().manual_seed(seed * 1_000_003 + step)
        images = pictures.batch(torch.randint(len(pictures.scenes), (16,), generator=rng))
        x, y = (8 * torch.randint(9, (2,), generator=rng)).tolist()
        crops = images[:, :, y : y + 64, x : x + 64].to(device(), memory_format=torch.channels_last)
        latents = modules["taesd_encoder"](crops)
        noise = LATENT_NOISE * torch.randn(latents.shape, generator=rng).to(latents.device)
        error = modules["taesd_decoder"](latents + noise) - crops
        mean, deviation = latents.mean((0, 2, 3)), latents.std((0, 2, 3))
        return error.abs().mean() + 2 * error.square().mean() + 0.02 * (mean.square() + (deviation - 1).square()).mean()

    fit("autoencoder", modules, [{"params": modules.parameters(), "lr": 2e-3}], loss, steps, directory)
    return modules


def widen(modules: nn.ModuleDict) -> dict[str, torch.Tensor]:
    """The trained weights in TAESD's width, zeros elsewhere, with the scale that the latent format expects."""
    wide = {"taesd_encoder": encoder(TAESD_WIDTH), "taesd_decoder": decoder(TAESD_WIDTH)}
    tensors = {"vae_scale": torch.tensor(LATENT_SCALE), "vae_shift": torch.tensor(0.0)}
    for part, network in wide.items():
        for key, value in network.state_dict().items():
            narrow = modules[part].state_dict()[key]
            padded = torch.zeros_like(value)
            padded[tuple(slice(0, n) for n in narrow.shape)] = narrow
            tensors[f"{part}.{key}"] = padded
    return tensors


@torch.no_grad()
def narrow(tensors: Mapping[str, torch.Tensor]) -> nn.ModuleDict:
    """The inverse of `widen`."""
    modules = nn.ModuleDict({"taesd_encoder": encoder(WIDTH), "taesd_decoder": decoder(WIDTH)})
    for key, own in modules.state_dict().items():
        own.copy_(tensors[key][tuple(slice(0, n) for n in own.shape)])
    return modules


@torch.no_grad()
def encode(modules: nn.ModuleDict, images: torch.Tensor) -> torch.Tensor:
    """Images in 0..1 [N, 3, H, W] to latents of about unit variance [N, 4, H/8, W/8]."""
    return torch.cat([modules["taesd_encoder"](part.to(device())).cpu() for part in images.split(32)])


@torch.no_grad()
def decode(modules: nn.ModuleDict, latents: torch.Tensor) -> torch.Tensor:
    """The inverse of `encode`, clipped to 0..1."""
    parts = [modules["taesd_decoder"](part.to(device())).cpu() for part in latents.split(32)]
    return torch.cat(parts).clamp(0, 1)
