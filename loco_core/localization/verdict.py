"""What a search's scores say: is the concept localized, spread over layers, or not in the images at all?"""

from __future__ import annotations

from dataclasses import dataclass

from ..choices import Choice
from ..models.layers import LayerSet
from ..scoring.clip_score import LEAST_EFFECT
from ..scoring.intervals import Estimate, estimate, margin
from .score_table import ScoreTable


class Kind(Choice):
    """What a search says of a concept."""

    LOCALIZED = "localized"
    SPREAD = "spread over several layers"
    NO_RIVAL = "too wide a window to tell"
    NO_EFFECT = "no effect"


# A concept is localized if the window surely has at least this share of the effect of all layers...
LEAST_SHARE = 0.5
# ... and no window apart from it surely has an effect of more than this share of the window's own.
SECOND_HOME = 0.2
# How sure it must be, after all images, that an effect or a margin is above 0.
SURE = 0.95
# The same, to stop before all images are made.
SURE_EARLY = 0.999


@dataclass(frozen=True)
class Rival:
    """The best window that shares no layer with the winner, its effect, and how far the winner is ahead of it."""

    window: LayerSet
    effect: Estimate
    margin: Estimate


@dataclass(frozen=True)
class Verdict:
    """What is said of a concept, and why.

    whole: the effect of all layers. effect: that of the winning window; None where the concept has no effect. excess:
    how far the effect lies above LEAST_SHARE of the whole. rival: what the window is compared with, if anything.
    """

    kind: Kind
    whole: Estimate
    effect: Estimate | None = None
    excess: Estimate | None = None
    rival: Rival | None = None

    @property
    def share(self) -> float:
        """The window's effect as a share of that of all layers, never a tiny number; 0 where there is none."""
        return self.effect.mean / self.whole.mean if self.effect else 0.0


def shows(table: ScoreTable, pairs: int) -> bool:
    """Whether the concept is in the unmodified images: whether they fit the scored text as they should, compared with
    images in which all layers get the target prompt. Asked of a few images first, of all if these do not tell.
    """
    count = min(table.images, 2 * pairs)
    while True:
        table.ask({table.whole: count})
        effect = estimate(table.effects(table.whole), pairs)
        if effect.images == 1:
            return effect.mean >= LEAST_EFFECT
        if effect.mean >= LEAST_EFFECT and effect.confidence_positive >= SURE_EARLY:
            return True
        if count == table.images:
            return effect.mean >= LEAST_EFFECT and effect.confidence_positive >= SURE
        count = min(table.images, 2 * count)


def judge(table: ScoreTable, best: LayerSet, tried: list[LayerSet], pairs: int) -> Verdict:
    """The verdict on the window that won. Asks for images of it, of all layers and of its best rival, the same for all,
    until it is sure, has all, or has spent as many as two windows have. Where all layers turn out to have no effect in
    them, there is none to share. Where no window fits beside the best, there is none to compare it with, so nothing is
    asked for.

    Being surely above a share guards against a window that won by luck: on the demo model the best window for an
    object had half of the effect in 12 images, and a sixth of it in 40.
    """
    apart = [window for window in tried if not set(window) & set(best)]
    if not apart:
        whole, effect = (estimate(table.effects(window), pairs) for window in (table.whole, best))
        return Verdict(Kind.NO_RIVAL, whole, effect) if whole.mean >= LEAST_EFFECT else Verdict(Kind.NO_EFFECT, whole)
    count = min(table.images, max(table.count(best), 2 * pairs))
    end = table.made + 2 * table.images  # a rival by luck falls back with more images, and there may be many such
    while True:
        rival = max(apart, key=lambda window: table.effects(window).mean())
        compared = (best, rival, table.whole)
        if min(map(table.count, compared)) < count and table.made < end:
            table.ask(dict.fromkeys(compared, count))
            continue
        ahead = margin(table.effects(best), table.effects(rival), pairs)
        excess = margin(table.effects(best), LEAST_SHARE * table.effects(table.whole), pairs)
        sure = (ahead.confidence_positive, max(excess.confidence_positive, 1 - excess.confidence_positive))
        settled = min(sure) >= SURE_EARLY
        if count == table.images or table.made >= end or settled:
            break
        count = min(table.images, 2 * count)
    effect, other, whole = (estimate(table.effects(window), pairs) for window in compared)
    if whole.mean < LEAST_EFFECT:
        return Verdict(Kind.NO_EFFECT, whole)
    others = (estimate(table.effects(window), pairs) for window in apart)
    second = any(value.mean > SECOND_HOME * effect.mean and not value.low <= 0 for value in others)
    localized = _surely_positive(ahead) and _surely_positive(excess) and not second
    kind = Kind.LOCALIZED if localized else Kind.SPREAD
    return Verdict(kind, whole, effect, excess, Rival(rival, other, ahead))


def _surely_positive(value: Estimate) -> bool:
    """From one image nothing is sure: there the mean alone counts."""
    return value.mean > 0 and (value.confidence_positive >= SURE or value.images == 1)
