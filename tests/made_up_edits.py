"""A made-up model to edit, which predicts what its layers make of the tokens that they get."""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence

import torch

from loco_core.models.engine import Encode, Row, Sampling, TextEmbedding
from made_up import WIDTH, chunk, encode, unet

LAYERS = unet(*(("input", number, 1) for number in range(4)))
# The words that say much.
LOUD = ("woodcut", "halftone", "painting", *(f"{letter}{letter}ism" for letter in "abcdefghijklmnopqrstuvwxyz"))
# Of its latents: as many as tell tokens apart.
CHANNELS = 64


class Linear:
    """Its prediction is the sum of what layers 1 and 2 make of the mean token, each by its own weight."""

    layers = LAYERS

    def __init__(self, encode: Encode = encode) -> None:
        self._encode = encode
        self.asked: list[int] = []
        generator = torch.Generator().manual_seed(0)
        self._weights = {layer: torch.randn(CHANNELS, WIDTH, generator=generator) for layer in (1, 2)}

    def encode(self, prompts: Sequence[str]) -> list[TextEmbedding]:
        return self._encode(prompts)

    def sigmas(self, sampling: Sampling) -> list[float]:
        return [*(2.0**-step for step in range(sampling.steps)), 0.0]

    def latents_at(self, rows: Sequence[Row], sampling: Sampling, steps: Sequence[int], *_) -> torch.Tensor:
        return torch.zeros(len(rows), len(steps), CHANNELS, 1, 1)

    def predict(self, rows: Sequence[Row], latents: torch.Tensor, sampling: Sampling, step: int) -> torch.Tensor:
        self.asked.append(len(rows))
        return torch.stack([self._prediction(row) for row in rows])[:, :, None, None]

    def _prediction(self, row: Row) -> torch.Tensor:
        made = torch.zeros(CHANNELS)
        for layer, weight in self._weights.items():
            changed = row.intervention is not None and layer in row.intervention.layers
            tokens = (row.intervention.embedding if changed else row.embedding).tokens
            made += weight @ tokens.mean(0)
        return made


def encode_words(prompts: Sequence[str]) -> list[TextEmbedding]:
    """A made-up text encoder in which a word says the same in every prompt: a token is the sum of all words up to it,
    whatever their weights and marks. Most words say little.
    """
    embeddings = []
    for prompt in prompts:
        words = re.findall(r"[a-z]+", prompt.lower())
        own = [_meaning(word) for word in ["start", *words]]
        sums = torch.stack(own).cumsum(0)
        end = (sums[-1] + _meaning("end"))[None]
        embeddings.append(TextEmbedding(prompt, torch.cat([sums, *[end] * (76 - len(words))]), (chunk(len(words)),)))
    return embeddings


def _meaning(word: str) -> torch.Tensor:
    size = 1.0 if word in LOUD else 0.1
    return size * torch.randn(WIDTH, generator=torch.Generator().manual_seed(zlib.crc32(word.encode())))
