"""The scores of images in which sets of layers get the target prompt, beside those of the unmodified images."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from ..models.layers import LayerSet


@dataclass(frozen=True)
class Cell:
    """One image to be made: the layers of `window` get the target prompt (None: no layer does), in image number `image`
    of the plan.
    """

    window: LayerSet | None
    image: int


# Makes cells, packed into batches as it likes, and gives their scores: float [cells], NaN where nothing scores them.
Evaluate = Callable[[Sequence[Cell]], np.ndarray]


class ScoreTable:
    """Scores of sets of layers on the same `images` images.

    `sign` is -1 where a wanted effect lowers the score (a style or an object goes away), 1 where it raises it.
    """

    def __init__(self, evaluate: Evaluate, images: int, sign: int, layer_count: int) -> None:
        self._evaluate, self.images, self.sign = evaluate, images, sign
        self.layer_count, self.whole = layer_count, LayerSet(tuple(range(layer_count)), layer_count)
        self._scores: dict[LayerSet | None, np.ndarray] = {}

    def ask(self, sets: Iterable[LayerSet | None]) -> None:
        """Makes the images of these sets that are not there yet, and the unmodified ones."""
        new = [layers for layers in dict.fromkeys([None, *sets]) if layers not in self._scores]
        cells = [Cell(layers, image) for layers in new for image in range(self.images)]
        scores = np.asarray(self._evaluate(cells), float).reshape(len(new), -1) if new else ()
        self._scores |= dict(zip(new, scores, strict=True))

    @property
    def sets(self) -> list[LayerSet]:
        """The sets that are there, all layers among them, in the order in which they were made."""
        return [layers for layers in self._scores if layers is not None]

    def scores(self, layers: LayerSet | None) -> np.ndarray:
        """[images]"""
        return self._scores[layers]

    def effects(self, layers: LayerSet) -> np.ndarray:
        """Differences to the unmodified image of the same prompt and seed, positive where wanted: [images]."""
        return self.sign * (self._scores[layers] - self._scores[None])
