"""Making and scoring the cells that a search asks for: the only place where a search makes images."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ..images import batches, check_batch_rows, thumbnails
from ..models.engine import Engine, Intervention, Row
from ..scoring.clip_score import Scorer, finite_scores
from .journal import Finished, Journal
from .plan import SearchPlan
from .score_table import Cell


@dataclass(frozen=True)
class SearchProgress:
    """What is called after each batch, with all that was made so far, and after each sampler step. An exception there
    ends the search.
    """

    on_batch: Callable[[Evaluation], None] = lambda evaluation: None
    on_step: Callable[[], None] | None = None


QUIET = SearchProgress()


class Evaluation:
    """An `Evaluate` on an engine and a scorer.

    Cells of one number of steps go into full batches of `rows_per_batch`, whatever their windows. A batch that the
    `journal` knows is not made again.
    """

    def __init__(
        self,
        engine: Engine,
        scorer: Scorer,
        plan: SearchPlan,
        rows_per_batch: int,
        progress: SearchProgress = QUIET,
        journal: Journal | None = None,
    ) -> None:
        check_batch_rows(rows_per_batch)
        self._engine, self._scorer, self._plan, self._rows = engine, scorer, plan, rows_per_batch
        self._progress, self._journal = progress, journal
        prompts = list(dict.fromkeys(text for pair in plan.pairs for text in (pair.concept, pair.target)))
        self._embeddings = dict(zip(prompts, engine.encode(prompts), strict=True))
        self.cells: list[Cell] = []
        self.scores: list[float] = []
        self.thumbnails: list[np.ndarray] = []
        self._recalled_steps = 0

    @property
    def cost(self) -> float:
        """What the images made so far cost the denoiser, in images of the plan's own steps."""
        return sum(cell.steps for cell in self.cells) / self._plan.sampling.steps

    @property
    def recalled(self) -> float:
        """The part of the cost that an earlier run has paid: its images are in the journal."""
        return self._recalled_steps / self._plan.sampling.steps

    @property
    def label(self) -> str:
        """What was made last."""
        return f"layers {self.cells[-1].window}" if self.cells[-1].window else "unmodified"

    def __call__(self, cells: Sequence[Cell]) -> np.ndarray:
        scores = []
        for steps, group in itertools.groupby(cells, key=lambda cell: cell.steps):
            scores += [self._batch(batch, steps) for batch in batches(list(group), self._rows)]
        return np.concatenate(scores)

    def _batch(self, cells: Sequence[Cell], steps: int) -> np.ndarray:
        made = None if self._journal is None else self._journal.known(cells)
        if made is None:
            made = self._make(cells, steps)
            if self._journal is not None:
                self._journal.add(cells, made)
        else:
            self._recalled_steps += steps * len(cells)
        self.cells += cells
        self.scores += made.scores.tolist()
        self.thumbnails += list(made.thumbnails)
        self._progress.on_batch(self)
        return made.scores

    def _make(self, cells: Sequence[Cell], steps: int) -> Finished:
        sampling = self._plan.sampling.with_steps(steps)
        images = self._engine.generate([self._row(cell) for cell in cells], sampling, self._progress.on_step)
        texts = [self._plan.scored_text(self._plan.images[cell.image][0]) for cell in cells]
        return Finished(finite_scores(self._scorer, images, texts), thumbnails(images))

    def _row(self, cell: Cell) -> Row:
        pair, seed = self._plan.images[cell.image]
        target = self._embeddings[pair.target]
        change = Intervention(cell.window, target, self._plan.part) if cell.window else None
        return Row(self._embeddings[pair.concept], seed, change)
