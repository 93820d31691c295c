"""What a search's scores say: is the concept localized, spread over layers, or not in the images at all?"""

from __future__ import annotations

from dataclasses import dataclass

from .layers import LayerSet
from .score_table import ScoreTable
from .statistics import Estimate, estimate, margin

LOCALIZED, SPREAD, NO_EFFECT = "localized", "spread over several layers", "no effect"
LEAST_EFFECT = 0.5
"""Points of CLIP-Score; what is less than this with all layers changed is no effect, however sure."""
LEAST_SHARE = 0.5
"""A concept is localized if the window has at least this share of the effect of all layers..."""
SECOND_HOME = 0.2
"""... and no window apart from it surely has an effect of more than this share of the window's own."""
SURE, SURE_EARLY = 0.95, 0.999
"""How sure it must be that an effect or a margin is above 0: after all images, and to stop before."""


@dataclass(frozen=True)
class Verdict:
    """`whole`: the effect of all layers. The others are None without an effect: `effect` of the winning window, `rival`
    the best window that shares no layer with it, `rival_effect` and the `margin` between the two on the same images.
    """

    kind: str
    whole: Estimate
    effect: Estimate | None = None
    rival: LayerSet | None = None
    rival_effect: Estimate | None = None
    margin: Estimate | None = None

    @property
    def share(self) -> float:
        """The window's effect as a share of that of all layers."""
        return self.effect.mean / self.whole.mean


def shows(table: ScoreTable, pairs: int) -> bool:
    """Whether the concept is in the unmodified images: whether they fit the scored text as they should, compared with
    images in which all layers read the target. Asked of a few images first, of all if these do not tell.
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
    """The verdict on the window that won. Asks for images of it and of its best rival, the same for both, until it is
    sure, has all, or has spent as many as one window has.
    """
    apart = [window for window in tried if not set(window) & set(best)]
    whole = estimate(table.effects(table.whole), pairs)
    if not apart:
        return Verdict(SPREAD, whole, estimate(table.effects(best), pairs))
    count = min(table.images, max(table.count(best), 2 * pairs))
    end = table.made + table.images  # a rival by luck falls back with more images, and there may be many such
    while True:
        rival = max(apart, key=lambda window: table.effects(window).mean())
        if min(table.count(rival), table.count(best)) < count and table.made < end:
            table.ask(dict.fromkeys((best, rival), count))
            continue
        ahead = margin(table.effects(best), table.effects(rival), pairs)
        if count == table.images or table.made >= end or ahead.confidence_positive >= SURE:
            break
        count = min(table.images, 2 * count)
    effect, other = (estimate(table.effects(window), pairs) for window in (best, rival))
    clear = ahead.mean > 0 and (ahead.confidence_positive >= SURE or ahead.images == 1)
    second = other.mean > SECOND_HOME * effect.mean and not other.low <= 0
    kind = LOCALIZED if clear and effect.mean >= LEAST_SHARE * whole.mean and not second else SPREAD
    return Verdict(kind, whole, effect, rival, other, ahead)
