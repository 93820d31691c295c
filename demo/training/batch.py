"""The pictures of one training step of a denoiser, by its number: a resumed training sees the same."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from ..world import Scene, all_scenes
from .plan import draw_scene

ROWS = 32
# Shares of the training after which decoys and mistakes begin, and after which they have their full share.
#
# A network that knows the objects learns to pool over layers; one that does not yet learns them slowly from mistakes.
DECOYS = (0.05, 0.12)
MISTAKES = (0.55, 0.6)
_PLACES = {scene: index for index, scene in enumerate(all_scenes())}


@dataclass(frozen=True)
class Batch:
    """scenes: what the pictures show. drawings: their numbers among all. decoys, mistakes: the shares at this step, in
    0..1. What else is drawn for the step, prompts and noise, is drawn from the two generators.
    """

    scenes: list[Scene]
    drawings: torch.Tensor
    decoys: float
    mistakes: float
    prompt_rng: np.random.Generator
    noise_rng: torch.Generator


def draw_batch(step: int, steps: int, seed: int, drawings: int) -> Batch:
    """Of `drawings` pictures, which are copies of all scenes in their order."""
    rng = np.random.default_rng((seed, step))
    decoys, mistakes = (float(np.interp(step / steps, ramp, (0, 1))) for ramp in (DECOYS, MISTAKES))
    scenes, copies = [draw_scene(rng) for _ in range(ROWS)], drawings // len(_PLACES)
    rows = torch.tensor([_PLACES[scene] + len(_PLACES) * rng.integers(copies) for scene in scenes])
    noise_rng = torch.Generator().manual_seed(seed * 1_000_003 + step)
    return Batch(scenes, rows, decoys, mistakes, rng, noise_rng)
