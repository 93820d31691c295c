"""What a model predicts at the noise levels that unmodified runs pass: the ground on which rows are compared.

    levels = NoiseLevels(engine, unmodified, sampling, steps, rows_per_batch=16)
    own, changed = levels.predict(0, [(run, row), (run, changed_row)])

All rows that are compared share a run's latents at a level, so that nothing else differs between them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from .images import batches, check_batch_rows
from .models.engine import Engine, Row, Sampling

# Called with the rows of the denoiser done so far. An exception there ends the work.
OnRows = Callable[[int], None]


def evenly(levels: int, steps: int) -> list[int]:
    """The steps before which to look, of a run of so many: spread over the denoising. The first is pure noise."""
    count = min(levels, steps)
    return [level * steps // count for level in range(count)]


class NoiseLevels:
    """Runs from noise up to the last of `steps`.

    weights: how far the image moves towards a prediction until the next of the steps, 1 - sigma' / sigma: the length of
    Euler's step between the two [steps]. rows: of the denoiser, so far.
    """

    def __init__(
        self,
        engine: Engine,
        unmodified: Sequence[Row],
        sampling: Sampling,
        steps: Sequence[int],
        rows_per_batch: int,
        on_rows: OnRows = lambda done: None,
    ) -> None:
        check_batch_rows(rows_per_batch)
        self._engine, self._sampling, self._steps = engine, sampling, steps
        self._rows_per_batch, self._on_rows = rows_per_batch, on_rows
        self.weights = _weights(engine.sigmas(sampling), steps)
        self.rows = 0
        self._latents = torch.cat([self._path(batch) for batch in batches(unmodified, rows_per_batch)])

    def _path(self, unmodified: Sequence[Row]) -> torch.Tensor:
        """What these runs are at before each of the steps: [rows, steps, C, h, w]."""
        before, steps_done = self.rows, 0
        rows_per_step = len(unmodified) * self._sampling.rows_per_step

        def on_step() -> None:
            nonlocal steps_done
            steps_done = min(steps_done + 1, max(self._steps))  # it comes again for rows that memory parts
            self._on_rows(before + steps_done * rows_per_step)

        latents = self._engine.latents_at(unmodified, self._sampling, self._steps, on_step)
        self.rows += max(self._steps) * rows_per_step
        return latents

    def predict(self, level: int, asked: Sequence[tuple[int, Row]]) -> list[torch.Tensor]:
        """Of each row, whose latents are those of a run at this level: [C x h x w], in float64."""
        predictions: list[torch.Tensor] = []
        for batch in batches(asked, self._rows_per_batch):
            rows, latents = [row for _, row in batch], torch.stack([self._latents[run, level] for run, _ in batch])
            predicted = self._engine.predict(rows, latents, self._sampling, self._steps[level])
            predictions += predicted.flatten(1).double()
            self.rows += len(batch)
            self._on_rows(self.rows)
        for (_, row), own in zip(asked, predictions, strict=True):
            if not torch.isfinite(own).all():
                prompt = row.embedding.prompt
                raise ValueError(f"model: NaN or Inf in what it predicts for {prompt!r}; try a float32 U-Net")
        return predictions


def _weights(sigmas: Sequence[float], steps: Sequence[int]) -> np.ndarray:
    levels = np.array([*(sigmas[step] for step in steps), sigmas[-1]])
    return 1 - levels[1:] / levels[:-1]
