"""Whether an edit did what it should: the same prompts and seeds before and after it, scored and compared in pairs.

result = measure_erasure(engine, edited_engine, scorer, plan, rows_per_batch=8)
print(erasure_report(result))
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ..images import QUIET, ImageMaker, Progress, batches, thumbnails
from ..models.engine import Engine, Sampling
from ..prompt_text import plain_text
from ..prompts import PromptPair, check_pairs_differ
from ..report import Report
from ..scoring.clip_score import LEAST_EFFECT, Scorer, finite_scores
from ..scoring.intervals import Estimate, estimate
from ..scoring.long_texts import unseen_ends

logger = logging.getLogger(__name__)

# Images scored together.
AT_ONCE = 8
# From this share of what told the concept from its target, a concept counts as removed.
REMOVED = 0.8
# From this share of its CLIP-Score on, a kept prompt counts as having lost something.
LOST = 0.05


def tells_apart(points: float) -> bool:
    """Whether so many points of CLIP-Score are a difference of which shares can be taken; of less, or of NaN, a share
    would be noise.
    """
    return points >= LEAST_EFFECT


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
        check_pairs_differ(self.pairs)
        removed = set(self.kept) & set(self.concepts)
        if removed:
            raise ValueError(f"keep prompts: {min(removed)!r} is a concept prompt too, which is to change; take it out")

    def check_keeps(self) -> None:
        """An error where no image could show what removal is to be weighed against."""
        if not self.kept:
            raise ValueError("keep prompts: empty; give at least one, against which removal is weighed")
        if set(self.kept) == {pair.target for pair in self.pairs} and len(self.kept) == 1:
            raise ValueError(
                f"keep prompts: {self.kept[0]!r} is the only target prompt too, so its images are what they would be "
                "compared with; give another prompt, of something that should stay"
            )

    @property
    def concepts(self) -> list[str]:
        return [pair.concept for pair in self.pairs]

    @property
    def shown(self) -> list[str]:
        """The prompts that are compared before and after, the concepts first."""
        return [*self.concepts, *self.kept]

    def unseen_by(self, scorer: Scorer) -> tuple[str, ...]:
        """Warnings of prompts that the scorer sees in part; an error where it cannot tell concept from target."""
        return unseen_ends(scorer, self.pairs, self.shown)

    @property
    def images(self) -> int:
        """How many images the report needs: targets, concepts twice, kept prompts twice."""
        return (3 * len(self.pairs) + 2 * len(self.kept)) * len(self.seeds)


@dataclass(frozen=True)
class Change:
    """Scores of the same prompts and seeds, [n] each, before and after."""

    before: np.ndarray
    after: np.ndarray

    def part(self, start: int, stop: int) -> Change:
        """That of the images from `start` to before `stop`."""
        return Change(self.before[start:stop], self.after[start:stop])

    @property
    def estimate(self) -> Estimate:
        """The mean paired difference, with its 95 % interval (Student's t)."""
        return estimate(self.after - self.before, len(self.before))

    @property
    def difference(self) -> float:
        return self.estimate.mean

    @property
    def lost(self) -> float:
        """The share of the score that is gone; NaN where there was next to none."""
        score = float(self.before.mean())
        return -self.difference / score if tells_apart(score) else float("nan")

    def kept_above(self, floor: float) -> float:
        """What is left, in 0..1, of what the images before score above `floor`; NaN where that is next to nothing."""
        reach = float(self.before.mean()) - floor
        left = float(self.after.mean()) - floor
        return min(1.0, max(0.0, left / reach)) if tells_apart(reach) else float("nan")

    @property
    def certain(self) -> bool:
        """Whether the interval of the difference leaves out 0."""
        return self.estimate.low > 0 or self.estimate.high < 0


@dataclass(frozen=True)
class ErasureResult:
    """concept: the concept prompts' images against these prompts; floor: what the target prompts' images, by the model
    before, score against the same. kept: by prompt; kept_floor: what the targets' images score against it on average.
    similarity: [n] per kept image, CLIP's cosine x 100 between before and after. Thumbnails uint8 [n, h, w, 3], the
    concepts first. warnings: what the scorer could not see.
    """

    plan: ErasurePlan
    concept: Change
    floor: np.ndarray
    kept: dict[str, Change]
    kept_floor: dict[str, float]
    similarity: np.ndarray
    thumbnails_before: np.ndarray
    thumbnails_after: np.ndarray
    warnings: tuple[str, ...]

    @property
    def removed(self) -> float:
        """The share of what the concept prompts' images score above the target prompts' images that is gone; NaN where
        they score no higher.
        """
        reach = float(self.concept.before.mean() - self.floor.mean())
        return -self.concept.difference / reach if tells_apart(reach) else float("nan")

    @property
    def kept_shares(self) -> dict[str, float]:
        """By kept prompt, what its images keep of what they score above other images, in 0..1; NaN where the images
        before score no higher.
        """
        return {prompt: change.kept_above(self.kept_floor[prompt]) for prompt, change in self.kept.items()}

    @property
    def kept_share(self) -> float:
        """The mean of `kept_shares` over the prompts that have one."""
        shares = [share for share in self.kept_shares.values() if not np.isnan(share)]
        return float(np.mean(shares)) if shares else float("nan")

    @property
    def verdict(self) -> str:
        """The result in a sentence."""
        lost = {name: change for name, change in self.kept.items() if change.lost >= LOST}
        unseen = [repr(plain_text(name)) for name, change in self.kept.items() if np.isnan(change.lost)]
        said = self._concept_verdict
        if lost:
            verbs = {True: "lost", False: "may have lost"}
            told = ", ".join(
                f"{plain_text(name)!r} {verbs[change.certain]} {change.lost:.0%}" for name, change in lost.items()
            )
            more = "" if all(change.certain for change in lost.values()) else " (more seeds would tell)"
            said += f", but {told}{more}"
        elif len(unseen) < len(self.kept):
            said += "; neighbours kept"
        if unseen:
            said += f"; cannot tell whether {', '.join(unseen)} is kept: the images before do not fit it either"
        return said

    @property
    def _concept_verdict(self) -> str:
        if np.isnan(self.removed):
            return "cannot tell whether it is removed: the images before fit the concept no better than the targets' do"
        if self.removed >= REMOVED:
            return "removed"
        return f"only {self.removed:.0%} removed" if self.removed >= REMOVED / 2 else "not removed"


@dataclass(frozen=True, eq=False)
class Before:
    """The images by the model as loaded, uint8 [n, H, W, 3], the concepts' first, and their scores [n].

    floor: what the target prompts' images score against the concept prompts, and kept_floor, by kept prompt, what they
    score against it on average. warnings: what the scorer cannot see.
    """

    plan: ErasurePlan
    images: torch.Tensor
    thumbnails: np.ndarray
    scores: np.ndarray
    floor: np.ndarray
    kept_floor: dict[str, float]
    warnings: tuple[str, ...]

    def check_shows(self) -> None:
        """An error where there is nothing to measure: no concept in the images, or none of what is to be kept."""
        size = len(self.plan.seeds)
        concept, *kept = np.split(
            self.scores, [size * (len(self.plan.concepts) + i) for i in range(len(self.kept_floor))]
        )
        if not tells_apart(concept.mean() - self.floor.mean()):
            raise ValueError(
                f"concept prompts: their images score {concept.mean():.2f} against them, the target prompts' images "
                f"{self.floor.mean():.2f}; less than {LEAST_EFFECT} apart, the scorer cannot tell what is removed. Use "
                "prompts whose images show the concept, or another scorer"
            )
        floors = self.kept_floor.values()
        if not any(tells_apart(own.mean() - floor) for own, floor in zip(kept, floors, strict=True)):
            raise ValueError(
                f"keep prompts: no prompt's images score {LEAST_EFFECT} higher against it than the target prompts' "
                "images do; the scorer cannot tell what is kept. Use prompts of other things than the targets"
            )


def measure_before(engine: Engine, scorer: Scorer, plan: ErasurePlan, maker: ImageMaker) -> Before:
    warnings = plan.unseen_by(scorer)
    for warning in warnings:
        logger.warning(warning)
    targets = maker.make(engine, [pair.target for pair in plan.pairs], "targets")
    floor = _scored(scorer, plan, targets, plan.concepts)
    kept_floor = {kept: float(_scored(scorer, plan, targets, [kept] * len(plan.pairs)).mean()) for kept in plan.kept}
    images = maker.make(engine, plan.shown, "before")
    scores = _scored(scorer, plan, images, plan.shown)
    return Before(plan, images, _thumbnails(images), scores, floor, kept_floor, warnings)


def measure_after(
    before: Before, engine: Engine, scorer: Scorer, maker: ImageMaker, label: str = "after"
) -> ErasureResult:
    """The same images by the changed model, compared."""
    plan = before.plan
    images = maker.make(engine, plan.shown, label)
    change = Change(before.scores, _scored(scorer, plan, images, plan.shown))
    size = len(plan.seeds)
    split = len(plan.concepts) * size
    starts = {prompt: split + place * size for place, prompt in enumerate(plan.kept)}
    kept_pairs = zip(_floats(before.images[split:]), _floats(images[split:]), strict=True)
    similarities = [scorer.similarity(own, other).numpy() for own, other in kept_pairs if len(own)]
    return ErasureResult(
        plan=plan,
        concept=change.part(0, split),
        floor=before.floor,
        kept={prompt: change.part(start, start + size) for prompt, start in starts.items()},
        kept_floor=before.kept_floor,
        similarity=np.concatenate([np.zeros(0), *similarities]),
        thumbnails_before=before.thumbnails,
        thumbnails_after=_thumbnails(images),
        warnings=before.warnings,
    )


def image_maker(plan: ErasurePlan, rows_per_batch: int, total: int, progress: Progress) -> ImageMaker:
    """What makes the images of a plan, `total` of them."""
    return ImageMaker(
        seeds=plan.seeds, sampling=plan.sampling, rows_per_batch=rows_per_batch, total=total, progress=progress
    )


def measure_erasure(
    before: Engine,
    after: Engine,
    scorer: Scorer,
    plan: ErasurePlan,
    rows_per_batch: int,
    progress: Progress = QUIET,
) -> ErasureResult:
    """Makes and scores all images, by the model as loaded and by the changed one."""
    maker = image_maker(plan, rows_per_batch, plan.images, progress)
    return measure_after(measure_before(before, scorer, plan, maker), after, scorer, maker)


def _floats(images: torch.Tensor) -> Iterator[torch.Tensor]:
    """Images of 8 bits in 0..1, in batches of AT_ONCE or fewer."""
    return (torch.stack([*part]).float() / 255 for part in batches(images.unbind(), AT_ONCE))


def _thumbnails(images: torch.Tensor) -> np.ndarray:
    return np.concatenate([thumbnails(batch) for batch in _floats(images)])


def _scored(scorer: Scorer, plan: ErasurePlan, images: torch.Tensor, texts: Sequence[str]) -> np.ndarray:
    """[N], of images that show each text with every seed."""
    each = [text for text in texts for _ in plan.seeds]
    parts = zip(_floats(images), batches(each, AT_ONCE), strict=True)
    return np.concatenate([finite_scores(scorer, part, own) for part, own in parts])


def erasure_report(result: ErasureResult) -> Report:
    """The verdict; then the scores."""

    def line(name: str, change: Change) -> str:
        interval = change.estimate
        sure = f"95 % confidence {interval.low:+.2f} to {interval.high:+.2f}" if interval.images > 1 else "one image"
        means = f"{change.before.mean():.2f} -> {change.after.mean():.2f}"
        return f"  {name}: {means} ({change.difference:+.2f}, {sure})"

    way = "" if np.isnan(result.removed) else f"; {result.removed:.0%} of the way"
    lines = [
        f"CLIP-Score against the prompts, {len(result.plan.seeds)} images per prompt, before -> after:",
        line("concept", result.concept),
        f"  target prompts against the concept, as loaded: {result.floor.mean():.2f}{way}",
        *(line(name, change) for name, change in result.kept.items()),
    ]
    if len(result.similarity):
        lines.append(f"kept images, likeness before and after (CLIP's cosine x 100): {result.similarity.mean():.1f}")
    return Report((f"in images: {result.verdict}", *result.warnings), tuple(lines))
