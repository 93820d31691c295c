"""Whether an edit did what it should: the same prompts and seeds before and after it, scored and compared in pairs."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy import stats

from .engine import Engine, Row, Sampling
from .prompts import PromptPair
from .scorer import Scorer
from .search import thumbnails

CONFIDENCE = 0.95
REMOVED = 0.8
"""From this share of what told the concept from its target, a concept counts as removed."""
LOST = 0.05
"""From this share of its CLIP-Score, a kept prompt counts as having lost something..."""


@dataclass(frozen=True)
class ErasurePlan:
    """pairs: whole prompts with the concept, and what they should show after the edit. kept: prompts that must stay."""

    pairs: tuple[PromptPair, ...]
    kept: tuple[str, ...]
    seeds: tuple[int, ...]
    sampling: Sampling

    def __post_init__(self) -> None:
        if not self.seeds:
            raise ValueError("seeds: 0; give at least 1")

    @property
    def images(self) -> int:
        """How many images the report needs: targets, concepts twice, kept prompts twice."""
        return (3 * len(self.pairs) + 2 * len(self.kept)) * len(self.seeds)


@dataclass(frozen=True)
class Change:
    """Scores of the same prompts and seeds, [n] each, before and after."""

    before: np.ndarray
    after: np.ndarray

    @property
    def difference(self) -> float:
        return float((self.after - self.before).mean())

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % confidence interval of the mean paired difference (Student's t); NaN for a single image."""
        if len(self.before) < 2:
            return (float("nan"), float("nan"))
        differences = self.after - self.before
        error = differences.std(ddof=1) / np.sqrt(len(differences))
        reach = stats.t.ppf((1 + CONFIDENCE) / 2, len(differences) - 1) * error
        return (self.difference - float(reach), self.difference + float(reach))

    @property
    def lost(self) -> float:
        """The share of the score that is gone."""
        return float(-self.difference / self.before.mean()) if self.before.mean() else 0.0

    @property
    def certain(self) -> bool:
        """Whether the difference is none of chance's."""
        low, high = self.interval
        return low > 0 or high < 0


@dataclass(frozen=True)
class ErasureResult:
    """concept: the concept prompts' images against these prompts; floor: what the target prompts' images, by the model
    before, score against the same. kept: by prompt; similarity: [n] per kept image, CLIP's cosine x 100 between before
    and after. Thumbnails uint8 [n, h, w, 3], the concepts first.
    """

    plan: ErasurePlan
    concept: Change
    floor: np.ndarray
    kept: dict[str, Change]
    similarity: np.ndarray
    thumbnails_before: np.ndarray
    thumbnails_after: np.ndarray

    @property
    def removed(self) -> float:
        """The share of what the concept prompts' images score above the target prompts' images that is gone."""
        reach = float(self.concept.before.mean() - self.floor.mean())
        return -self.concept.difference / reach if reach > 0 else float("nan")

    @property
    def verdict(self) -> str:
        """The result in a sentence."""
        if not self.removed >= REMOVED:
            start = "not removed" if not self.removed >= REMOVED / 2 else f"only {self.removed:.0%} removed"
        else:
            start = "removed"
        losers = [name for name, change in self.kept.items() if change.lost >= LOST and change.certain]
        if losers:
            told = ", ".join(f"{name!r} lost {self.kept[name].lost:.0%}" for name in losers)
            return f"{start}, but {told}"
        return f"{start}; neighbours kept" if self.kept else start


def measure_erasure(
    before: Engine,
    after: Engine,
    scorer: Scorer,
    plan: ErasurePlan,
    rows_per_batch: int,
    on_batch: Callable[[int, int, str, np.ndarray], None] = lambda done, total, label, thumbnail: None,
    on_step: Callable[[], None] | None = None,
) -> ErasureResult:
    """Makes and scores all images. `on_batch(images so far, images in all, what was made last, its thumbnail)`."""
    if rows_per_batch < 1:
        raise ValueError(f"batch rows: {rows_per_batch}; give at least 1")
    done, prompts = 0, [pair.concept for pair in plan.pairs]

    def make(engine: Engine, texts: Sequence[str], label: str) -> torch.Tensor:
        nonlocal done
        embeddings = dict(zip(texts, engine.encode(texts), strict=True))
        rows = [Row(embeddings[text], seed) for text, seed in itertools.product(texts, plan.seeds)]
        parts = []
        for start in range(0, len(rows), rows_per_batch):
            parts.append(engine.generate(rows[start : start + rows_per_batch], plan.sampling, on_step))
            done += len(parts[-1])
            on_batch(done, plan.images, label, thumbnails(parts[-1])[-1])
        return torch.cat(parts)

    def score(images: torch.Tensor, texts: Sequence[str]) -> np.ndarray:
        return scorer.score(images, [text for text in texts for _ in plan.seeds]).numpy()

    floor = score(make(before, [pair.target for pair in plan.pairs], "targets"), prompts)
    shown = [*prompts, *plan.kept]
    own, edited = make(before, shown, "before"), make(after, shown, "after")
    scores = score(own, shown), score(edited, shown)
    size = len(plan.seeds)
    split = len(prompts) * size
    kept = {
        prompt: Change(*(part[split + place * size : split + (place + 1) * size] for part in scores))
        for place, prompt in enumerate(plan.kept)
    }
    similarity = scorer.similarity(own[split:], edited[split:]).numpy() if plan.kept else np.zeros(0)
    concept = Change(*(part[:split] for part in scores))
    return ErasureResult(plan, concept, floor, kept, similarity, thumbnails(own), thumbnails(edited))


def erasure_text(result: ErasureResult) -> str:
    """The result in lines a person reads."""

    def line(name: str, change: Change) -> str:
        low, high = change.interval
        sure = f"95 % confidence {low:+.2f} to {high:+.2f}" if len(change.before) > 1 else "one image"
        means = f"{change.before.mean():.2f} -> {change.after.mean():.2f}"
        return f"  {name}: {means} ({change.difference:+.2f}, {sure})"

    lines = [
        result.verdict,
        f"CLIP-Score against the prompts, {len(result.plan.seeds)} images per prompt, before -> after:",
        line("concept", result.concept),
        f"  target prompts against the concept, as loaded: {result.floor.mean():.2f}; {result.removed:.0%} of the way",
        *(line(name, change) for name, change in result.kept.items()),
    ]
    if len(result.similarity):
        lines.append(f"kept images, likeness before and after (CLIP's cosine x 100): {result.similarity.mean():.1f}")
    return "\n".join(lines)
