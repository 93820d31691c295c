"""What the scores of every window say: is the concept localized, spread over layers, or not in the images at all?"""

from __future__ import annotations

from dataclasses import dataclass

from ..choices import Choice
from ..models.layers import LayerSet
from ..scoring.clip_score import LEAST_EFFECT
from ..scoring.intervals import Estimate, estimate, margin
from .score_table import ScoreTable


class Kind(Choice):
    """What is said of a concept."""

    LOCALIZED = "localized"
    SPREAD = "spread over several layers"
    NO_RIVAL = "too wide a window to tell"
    NO_EFFECT = "no effect"


# A concept is localized if the window surely has at least this share of the effect of all layers...
LEAST_SHARE = 0.5
# ... and no window apart from it surely has an effect of more than this share of the window's own.
SECOND_HOME = 0.2
# How sure it must be that an effect or a margin is above 0.
SURE = 0.95


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
    images in which all layers get the target prompt.
    """
    whole = estimate(table.effects(table.whole), pairs)
    return whole.mean >= LEAST_EFFECT and (whole.images == 1 or whole.confidence_positive >= SURE)


def judge(table: ScoreTable, best: LayerSet, tried: list[LayerSet], pairs: int) -> Verdict:
    """The verdict on the window that won, from the scores of all windows.

    Being surely above a share guards against a window that won by luck: on the demo model the best window for an
    object had half of the effect in 12 images, and a sixth of it in 40.
    """
    effect, whole = (estimate(table.effects(window), pairs) for window in (best, table.whole))
    apart = [window for window in tried if not set(window) & set(best)]
    if not apart:
        return Verdict(Kind.NO_RIVAL, whole, effect)
    effects = {window: estimate(table.effects(window), pairs) for window in apart}
    rival = max(apart, key=lambda window: effects[window].mean)
    ahead = margin(table.effects(best), table.effects(rival), pairs)
    excess = margin(table.effects(best), LEAST_SHARE * table.effects(table.whole), pairs)
    second = any(value.mean > SECOND_HOME * effect.mean and not value.low <= 0 for value in effects.values())
    localized = _surely_positive(ahead) and _surely_positive(excess) and not second
    kind = Kind.LOCALIZED if localized else Kind.SPREAD
    return Verdict(kind, whole, effect, excess, Rival(rival, effects[rival], ahead))


def _surely_positive(value: Estimate) -> bool:
    """From one image nothing is sure: there the mean alone counts."""
    return value.mean > 0 and (value.confidence_positive >= SURE or value.images == 1)
