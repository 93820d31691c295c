"""Making and scoring the cells that a search asks for: the only place where a search makes images."""

from __future__ import annotations

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
    """What is called while it works: with the rows of the denoiser that the probe has taken so far; after each batch of
    images, with all that was made so far; after each sampler step. An exception there ends the search.
    """

    on_rows: Callable[[int], None] = lambda done: None
    on_batch: Callable[[Evaluation], None] = lambda evaluation: None
    on_step: Callable[[], None] | None = None


QUIET = SearchProgress()


class Evaluation:
    """An `Evaluate` on an engine and, where there is one, a scorer.

    Cells go into full batches of `rows_per_batch`, whatever their windows. A batch that the `journal` knows is not made
    again.
    """

    def __init__(
        self,
        engine: Engine,
        scorer: Scorer | None,
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
        # How many of the images an earlier run has made: they are in the journal.
        self.recalled = 0

    @property
    def label(self) -> str:
        """What was made last."""
        return f"{self.cells[-1].window.named}" if self.cells[-1].window else "unmodified"

    def __call__(self, cells: Sequence[Cell]) -> np.ndarray:
        return np.concatenate([self._batch(batch) for batch in batches(cells, self._rows)])

    def _batch(self, cells: Sequence[Cell]) -> np.ndarray:
        made = None if self._journal is None else self._journal.known(cells)
        if made is None:
            made = self._make(cells)
            if self._journal is not None:
                self._journal.add(cells, made)
        else:
            self.recalled += len(cells)
        self.cells += cells
        self.scores += made.scores.tolist()
        self.thumbnails += list(made.thumbnails)
        self._progress.on_batch(self)
        return made.scores

    def _make(self, cells: Sequence[Cell]) -> Finished:
        rows = [self._row(cell) for cell in cells]
        images = self._engine.generate(rows, self._plan.sampling, self._progress.on_step)
        if self._scorer is None:
            return Finished(np.full(len(cells), np.nan, np.float32), thumbnails(images))
        texts = [self._plan.scored_text(self._plan.images[cell.image][0]) for cell in cells]
        return Finished(finite_scores(self._scorer, images, texts), thumbnails(images))

    def _row(self, cell: Cell) -> Row:
        pair, seed = self._plan.images[cell.image]
        target = self._embeddings[pair.target]
        change = Intervention(cell.window, target, self._plan.part) if cell.window else None
        return Row(self._embeddings[pair.concept], seed, change)
