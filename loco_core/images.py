"""Prompts into images, in batches; and images as 8-bit numbers and thumbnails.

maker = ImageMaker(seeds=(0, 1), sampling=sampling, rows_per_batch=8, total=4)
images = maker.make(engine, ["a red star", "a blue fish"], "before")   # uint8 [4, H, W, 3]
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch.nn import functional

from .models.engine import Engine, Intervention, Row, Sampling

# Largest side of a thumbnail, in pixels.
THUMBNAIL = 128

Item = TypeVar("Item")

# Called with (images so far, images in all, what was made last, its thumbnail).
OnBatch = Callable[[int, int, str, np.ndarray], None]


@dataclass(frozen=True)
class Progress:
    """What is called while images are made: after each batch, and after each sampler step. An exception ends it."""

    on_batch: OnBatch = lambda done, total, label, thumbnail: None
    on_step: Callable[[], None] | None = None


QUIET = Progress()


class ImageMaker:
    """Makes images of prompts with every seed, in batches, and counts them up to `total`."""

    def __init__(
        self,
        *,
        seeds: Sequence[int],
        sampling: Sampling,
        rows_per_batch: int,
        total: int,
        progress: Progress = QUIET,
    ) -> None:
        check_batch_rows(rows_per_batch)
        self._seeds, self._sampling, self._rows_per_batch = seeds, sampling, rows_per_batch
        self._total, self._progress, self._done = total, progress, 0

    def make(
        self, engine: Engine, prompts: Sequence[str], label: str, change: Intervention | None = None
    ) -> torch.Tensor:
        """Every prompt with every seed: uint8 [prompts x seeds, H, W, 3], a quarter of the memory of floats."""
        embeddings = engine.encode(prompts)
        rows = [Row(embedding, seed, change) for embedding, seed in itertools.product(embeddings, self._seeds)]
        made = []
        for batch in batches(rows, self._rows_per_batch):
            images = engine.generate(batch, self._sampling, self._progress.on_step)
            made.append(in_8_bits(images))
            self._done += len(images)
            self._progress.on_batch(self._done, self._total, label, thumbnails(images[-1:])[0])
        return torch.cat(made)


def check_batch_rows(count: int) -> None:
    if count < 1:
        raise ValueError(f"batch rows: {count}; give at least 1")


def batches(rows: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    """The rows, `size` at a time or, so that all batches are about as large, a few less."""
    count = math.ceil(len(rows) / size)
    for number in range(count):
        yield rows[len(rows) * number // count : len(rows) * (number + 1) // count]


def in_8_bits(images: torch.Tensor) -> torch.Tensor:
    """Images in 0..1, of any shape, as uint8."""
    return (images.clamp(0, 1) * 255).round().to(torch.uint8)


def thumbnails(images: torch.Tensor, largest: int = THUMBNAIL) -> np.ndarray:
    """Images [N, H, W, 3] in 0..1 as uint8, no side longer than `largest` pixels."""
    height, width = images.shape[1:3]
    if max(height, width) > largest:
        factor = largest / max(height, width)
        size = (round(height * factor), round(width * factor))
        images = functional.interpolate(images.movedim(-1, 1), size, mode="area").movedim(1, -1)
    return in_8_bits(images).numpy()
