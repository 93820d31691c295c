"""The scores that a search has, and the one way to ask for more.

A search asks for cells: one window, one of the plan's images, a number of steps. Its strategies fill a table through
`Evaluate`, which makes and scores any cells at once, packed into batches as it likes: a batch may hold many windows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..models.layers import LayerSet


@dataclass(frozen=True)
class Cell:
    """One image to be made and scored: the layers of `window` get the target prompt (None: no layer does), in image
    number `image` of the plan, made in `steps` steps.
    """

    window: LayerSet | None
    image: int
    steps: int


# The scores of cells: float [cells].
Evaluate = Callable[[Sequence[Cell]], np.ndarray]


class ScoreTable:
    """Scores of windows on the first few of `images` images, and of the unmodified images beside them.

    `sign` is -1 where a wanted effect lowers the score (a style or an object goes away), 1 where it raises it.
    """

    def __init__(self, evaluate: Evaluate, images: int, steps: int, sign: int, layer_count: int) -> None:
        self._evaluate, self.images, self.steps, self.sign = evaluate, images, steps, sign
        self.layer_count, self.whole = layer_count, LayerSet(tuple(range(layer_count)), layer_count)
        self._scores: dict[LayerSet | None, list[float]] = {None: []}

    def ask(self, wanted: Mapping[LayerSet | None, int]) -> None:
        """Makes what is missing of each window's first images; the unmodified images as far as they are needed."""
        most = max((min(count, self.images) for count in wanted.values()), default=0)
        counts = {None: max(most, self.count(None))} | {w: n for w, n in wanted.items() if w is not None}
        cells = [
            Cell(window, image, self.steps)
            for window, count in counts.items()
            for image in range(self.count(window), min(count, self.images))
        ]
        for cell, score in zip(cells, self._evaluate(cells) if cells else (), strict=True):
            self._scores.setdefault(cell.window, []).append(float(score))

    @property
    def windows(self) -> list[LayerSet]:
        """The windows of which something is known, all layers among them."""
        return [window for window in self._scores if window is not None]

    def count(self, window: LayerSet | None) -> int:
        """On how many images the window is known."""
        return len(self._scores.get(window, ()))

    def scores(self, window: LayerSet | None) -> np.ndarray:
        """[count] of the first images."""
        return np.array(self._scores.get(window, ()))

    def effects(self, window: LayerSet) -> np.ndarray:
        """Differences to the unmodified image of the same prompt and seed, positive where wanted: [count]."""
        scores = self.scores(window)
        return self.sign * (scores - self.scores(None)[: len(scores)])

    @property
    def made(self) -> int:
        """Images in all."""
        return sum(map(len, self._scores.values()))
