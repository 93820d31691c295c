"""What a model predicts at the noise levels that unmodified runs pass: the ground on which rows are compared.

    levels = NoiseLevels(engine, unmodified, sampling, [(0, 10)] * len(unmodified), rows_per_batch=16)
    own, changed = levels.predict(0, [(run, row), (run, changed_row)])

All rows that are compared share a run's latents at a level, so that nothing else differs between them.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch

from .images import batches, check_batch_rows
from .models.engine import Engine, Row, Sampling

# Called with the rows of the denoiser done so far. An exception there ends the work.
OnRows = Callable[[int], None]
# (rows, latents, sampling, step) -> [len(rows), ...]; one row of the denoiser each.
Ask = Callable[[Sequence[Row], torch.Tensor, Sampling, int], torch.Tensor]


def evenly(levels: int, steps: int) -> list[int]:
    """The steps before which to look, of a run of so many: spread over the denoising. The first is pure noise."""
    count = min(levels, steps)
    return [level * steps // count for level in range(count)]


class NoiseLevels:
    """Runs from noise, each up to the last of its `steps`: those before which it is looked at.

    steps: of all runs together, in order; the number of one is its level. weights: how far the image moves towards a
    prediction until the next of them, 1 - sigma' / sigma: the length of Euler's step between the two [levels]. rows:
    of the denoiser, so far.
    """

    def __init__(
        self,
        engine: Engine,
        unmodified: Sequence[Row],
        sampling: Sampling,
        steps: Sequence[tuple[int, ...]],
        rows_per_batch: int,
        on_rows: OnRows = lambda done: None,
    ) -> None:
        check_batch_rows(rows_per_batch)
        self._engine, self._sampling = engine, sampling
        self._rows_per_batch, self._on_rows = rows_per_batch, on_rows
        self.steps = sorted(set(itertools.chain(*steps)))
        self.weights = _weights(engine.sigmas(sampling), self.steps)
        self.rows = 0
        self._latents: dict[tuple[int, int], torch.Tensor] = {}
        for batch in batches(range(len(steps)), rows_per_batch):
            self._follow({run: unmodified[run] for run in batch}, steps)

    def _follow(self, rows: Mapping[int, Row], steps: Sequence[tuple[int, ...]]) -> None:
        """Keeps what these runs are at before each of their steps [C, h, w], all of them together from level to level.
        A run ends with the last of its steps.
        """
        latents: dict[int, torch.Tensor] = {}
        for level, end in enumerate(self.steps):
            going_on = [run for run in rows if max(steps[run]) >= end]
            if not going_on:
                break
            passed = self.steps[max(0, level - 1) : level + 1]
            begun = torch.stack([latents[run] for run in going_on]) if level else None
            reached = self._reached([rows[run] for run in going_on], passed, begun)
            latents = dict(zip(going_on, reached, strict=True))
            self._latents |= {(run, level): latents[run] for run in going_on if end in steps[run]}

    def _reached(self, rows: Sequence[Row], passed: Sequence[int], begun: torch.Tensor | None) -> torch.Tensor:
        """What the rows' runs are at before the last of the steps passed: [len(rows), C, h, w]."""
        before, done = self.rows, 0
        most = passed[-1] - (0 if begun is None else passed[0])
        rows_per_step = len(rows) * self._sampling.rows_per_step

        def on_step() -> None:
            nonlocal done
            done = min(done + 1, most)  # it comes again for rows that memory parts
            self._on_rows(before + done * rows_per_step)

        latents = self._engine.latents_at(rows, self._sampling, passed, on_step, begun)
        self.rows += most * rows_per_step
        return latents[:, -1]

    def predict(self, level: int, asked: Sequence[tuple[int, Row]], engine: Engine | None = None) -> list[torch.Tensor]:
        """Of each row, whose latents are those of a run at this level: [C x h x w], in float64. engine: another one
        than that of the runs.
        """
        predictions = [own.flatten().double() for own in self.of_rows(level, asked, (engine or self._engine).predict)]
        for (_, row), own in zip(asked, predictions, strict=True):
            if not torch.isfinite(own).all():
                prompt = row.embedding.prompt
                raise ValueError(f"model: NaN or Inf in what it predicts for {prompt!r}; try a float32 U-Net")
        return predictions

    def of_rows(self, level: int, asked: Sequence[tuple[int, Row]], ask: Ask) -> list[torch.Tensor]:
        """What a method of an engine that takes what `predict` does gives of each row at the latents of a run."""
        given: list[torch.Tensor] = []
        for batch in batches(asked, self._rows_per_batch):
            rows, latents = [row for _, row in batch], torch.stack([self._latents[run, level] for run, _ in batch])
            given += ask(rows, latents, self._sampling, self.steps[level])
            self.rows += len(batch)
            self._on_rows(self.rows)
        return given


def _weights(sigmas: Sequence[float], steps: Sequence[int]) -> np.ndarray:
    levels = np.array([*(sigmas[step] for step in steps), sigmas[-1]])
    return 1 - levels[1:] / levels[:-1]
