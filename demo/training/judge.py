"""Training of the judge: on drawings, on VAE reconstructions of their noisy latents, and on augmented ones of both."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn
from torch.nn import functional

from ..judge import CLASSES, Judge, truth
from ..world import Scene, all_scenes
from .autoencoder import decode, encode
from .clip import augment
from .loop import device, fit
from .pictures import Pictures

BATCH = 64


def labels(scenes: list[Scene]) -> dict[str, torch.Tensor]:
    """The class of each scene for every attribute: [N] each."""
    truths = [truth(scene) for scene in scenes]
    return {name: torch.tensor([words.index(t[name]) for t in truths]) for name, words in CLASSES.items()}


def reconstruct(vae: nn.ModuleDict, drawings: Pictures, copies: int, seed: int) -> Pictures:
    """The first `copies` of all drawings through the VAE, with a little noise on their latents."""
    count = copies * len(all_scenes())
    latents = encode(vae, drawings.batch(torch.arange(count)))
    rng = torch.Generator().manual_seed(seed)
    strength = 0.3 * torch.rand(count, 1, 1, 1, generator=rng)
    images = decode(vae, latents + strength * torch.randn(latents.shape, generator=rng))
    return Pictures((images * 255).round().to(torch.uint8), drawings.scenes[:count])


def train_judge(drawings: Pictures, reconstructions: Pictures, seed: int, steps: int, directory: Path) -> nn.ModuleDict:
    """Returns {"judge": Judge}. Half of each batch are reconstructions; half of both are augmented."""
    torch.manual_seed(seed)
    modules = nn.ModuleDict({"judge": Judge()}).to(device())
    answers = [labels(pictures.scenes) for pictures in (drawings, reconstructions)]

    def loss(step: int) -> torch.Tensor:
        rng = torch.Generator().manual_seed(seed * 1_000_003 + step)
        images, wanted = [], []
        for pictures, answer in zip((drawings, reconstructions), answers, strict=True):
            rows = torch.randint(len(pictures.scenes), (BATCH // 2,), generator=rng)
            images.append(pictures.batch(rows))
            wanted.append({name: value[rows] for name, value in answer.items()})
        batch = torch.cat(images)
        batch = torch.cat([batch[::2], augment(batch[1::2], rng)])
        total = torch.zeros((), device=device())
        for name, logits in modules["judge"](batch.to(device())).items():
            answer = torch.cat([part[name] for part in wanted])
            answer = torch.cat([answer[::2], answer[1::2]]).to(device())
            total = total + functional.cross_entropy(logits, answer, label_smoothing=0.02)
        return total

    fit("judge", modules, [{"params": modules.parameters(), "lr": 1e-3}], loss, steps, directory)
    return modules


def accuracy(judge: Judge, pictures: Pictures) -> dict[str, float]:
    """The share of pictures read right, per attribute."""
    right = dict.fromkeys(CLASSES, 0)
    for rows in torch.arange(len(pictures.scenes)).split(64):
        seen = judge.read(pictures.batch(rows).to(device()))
        for place, row in enumerate(rows.tolist()):
            for name, word in truth(pictures.scenes[row]).items():
                right[name] += seen[name][place] == word
    return {name: count / len(pictures.scenes) for name, count in right.items()}
