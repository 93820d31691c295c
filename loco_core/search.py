"""LocoGen: which window of adjacent cross-attention layers carries an attribute (paper, section 5).

For every window of m layers, images are made in which the window's layers read the target prompt's embedding while
all other layers read the concept prompt's. With the attribute gone, the CLIP-Score against the concept prompt falls:
for a style or an object the window with the lowest mean score wins. A fact is updated rather than removed: there the
score is taken against the target prompt and the highest mean wins. All windows share the same pairs and seeds, so
their scores are paired.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from .engine import Engine, Intervention, Row, Sampling
from .layers import LayerSet, windows
from .prompts import ATTRIBUTES, PromptPair
from .scorer import Scorer

THUMBNAIL = 128
"""Largest side, in pixels, of the images that a search keeps for its contact sheet."""


@dataclass(frozen=True)
class SearchPlan:
    """What a search is to do: every window of `window_size` layers x every pair x every seed."""

    pairs: tuple[PromptPair, ...]
    seeds: tuple[int, ...]
    attribute: str
    window_size: int
    sampling: Sampling

    def __post_init__(self) -> None:
        if self.attribute not in ATTRIBUTES:
            raise ValueError(f"attribute: {self.attribute!r}; give one of {', '.join(ATTRIBUTES)}")
        if not self.pairs:
            raise ValueError("concept prompts: empty; give at least one line")
        if not self.seeds:
            raise ValueError("seeds: 0; give at least 1")

    @property
    def images_per_window(self) -> int:
        return len(self.pairs) * len(self.seeds)

    def scored_text(self, pair: PromptPair) -> str:
        """The prompt an image is scored against: the target of a fact, else the concept."""
        return pair.target if self.attribute == "fact" else pair.concept


@dataclass(frozen=True)
class SearchResult:
    """Scores of every window.

    baseline: [images] scores of the unmodified images; scores: [windows, images], the images in the same order (pairs,
    then seeds). thumbnails: uint8 [1 + windows, images, h, w, 3], the unmodified images first.
    """

    plan: SearchPlan
    windows: tuple[LayerSet, ...]
    baseline: np.ndarray
    scores: np.ndarray
    thumbnails: np.ndarray

    @property
    def all_scores(self) -> np.ndarray:
        """[(1 + windows) x images] in the order in which they were made."""
        return np.concatenate([self.baseline, *self.scores])

    @property
    def mean_scores(self) -> np.ndarray:
        return self.scores.mean(1)

    @property
    def standard_errors(self) -> np.ndarray:
        """Of each window's mean difference to the unmodified images of the same prompt and seed: [windows]."""
        count = self.scores.shape[1]
        if count < 2:
            return np.full(len(self.windows), np.nan)
        return (self.scores - self.baseline).std(1, ddof=1) / np.sqrt(count)

    @property
    def best(self) -> int:
        """The index of the winning window."""
        mean = self.mean_scores
        return int(mean.argmax() if self.plan.attribute == "fact" else mean.argmin())

    @property
    def layers(self) -> LayerSet:
        return self.windows[self.best]


def search(
    engine: Engine,
    scorer: Scorer,
    plan: SearchPlan,
    rows_per_batch: int,
    on_batch: Callable[[np.ndarray, int, str, np.ndarray], None] = lambda scores, total, label, thumbnail: None,
    on_step: Callable[[], None] | None = None,
) -> SearchResult:
    """Scores every window. `on_batch(scores so far, images in all, what was made last, its thumbnail)` after each
    batch; `on_step()` after each sampler step, where an exception ends the search.
    """
    if rows_per_batch < 1:
        raise ValueError(f"batch rows: {rows_per_batch}; give at least 1")
    tried = windows(len(engine.layers), plan.window_size)
    prompts = list(dict.fromkeys(text for pair in plan.pairs for text in (pair.concept, pair.target)))
    embeddings = dict(zip(prompts, engine.encode(prompts), strict=True))
    jobs: list[tuple[str, str, Row]] = []
    for number, window in enumerate((None, *tried)):
        for pair, seed in itertools.product(plan.pairs, plan.seeds):
            change = Intervention(window, embeddings[pair.target]) if window else None
            label = f"window {number} of {len(tried)} (layers {window})" if window else "unmodified"
            jobs.append((label, plan.scored_text(pair), Row(embeddings[pair.concept], seed, change)))
    scores, pictures = np.zeros(0, np.float32), []
    for start in range(0, len(jobs), rows_per_batch):
        batch = jobs[start : start + rows_per_batch]
        images = engine.generate([row for _, _, row in batch], plan.sampling, on_step)
        scores = np.concatenate([scores, scorer.score(images, [text for _, text, _ in batch]).numpy()])
        pictures.append(thumbnails(images))
        on_batch(scores, len(jobs), batch[-1][0], pictures[-1][-1])
    table = scores.reshape(1 + len(tried), plan.images_per_window)
    sheet = np.concatenate(pictures)
    sheet = sheet.reshape(1 + len(tried), plan.images_per_window, *sheet.shape[1:])
    return SearchResult(plan, tuple(tried), table[0], table[1:], sheet)


def thumbnails(images: torch.Tensor, largest: int = THUMBNAIL) -> np.ndarray:
    """Images [N, H, W, 3] in 0..1 as uint8, no side longer than `largest` pixels."""
    height, width = images.shape[1:3]
    if max(height, width) > largest:
        factor = largest / max(height, width)
        size = (round(height * factor), round(width * factor))
        images = functional.interpolate(images.movedim(-1, 1), size, mode="area").movedim(1, -1)
    return (images.clamp(0, 1) * 255).round().to(torch.uint8).numpy()
