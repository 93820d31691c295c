"""The drawings that every part of the demo model is trained on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from ..world import Scene, all_scenes, draw


@dataclass(frozen=True)
class Pictures:
    """Drawings and what they show. `images` is uint8 [N, 3, SIZE, SIZE]; `scenes` has the same order."""

    images: torch.Tensor
    scenes: list[Scene]

    def batch(self, indices: torch.Tensor) -> torch.Tensor:
        """The images at `indices` as float32 [B, 3, SIZE, SIZE] in 0..1."""
        return self.images[indices].float() / 255


def draw_pictures(copies: int, seed: int) -> Pictures:
    """Every scene of the world, `copies` times, each copy placed anew. Copy k of scene s stands at k * scenes + s."""
    rng = np.random.default_rng(seed)
    scenes = all_scenes() * copies
    images = np.stack([draw(scene, rng) for scene in scenes])
    return Pictures(torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(), scenes)
