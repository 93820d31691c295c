"""From what a probe measures to where a difference is made.

    found = localize(Prober(engine, plan, rows_per_batch=32), engine.layers)
    print(found.kind, found.layers, found.share)

Windows of the family's usual size are probed first; at the ends of the best, layers are left out, or taken in, by what
they add. Where the result does not make most of the difference, and alone, the layers may act only together: knowledge
that each of three layers has does not go before all three get the target. So the smallest set is looked for from the
other side: beginning with all layers, groups of them are left out, large ones first, as long as those that stay make
nearly all of the difference. That is delta debugging (Zeller and Hildebrandt, 2002): in the end none can be left out.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace

from ..models.layers import LayerSet, ModelLayers, windows
from .plan import AUTO, ProbePlan
from .probe import Probe, Prober
from .verdict import LEAST_SHARE, SECOND_HOME, Kind

# A layer belongs to a window if it adds at least this share of the whole difference to the rest, or if the mean of that
# and of what it makes alone is as much: of two layers that both know a thing, the second adds little...
MEMBER_SHARE = 0.1
# ... and one beside it, without which it was the best, if it adds at least this one.
TAKEN_IN_SHARE = 0.2
# The smallest set makes at least this share of it.
ENOUGH = 0.9
# Below this size beside that of the whole prompt, a hundredth of it in energy, a difference is next to none.
HARDLY_ANY = 0.1
# A window of more than this share of the layers is no place.
WIDEST = 1 / 3
# The part of the denoising in which this share of a window's effect arises is when it acts.
MOST = 0.9


@dataclass(frozen=True, eq=False)
class Localization:
    """Where a difference is made. layers: the window. smallest: the smallest set, adjacent or not, that was found.
    tried: the windows with which the probe began. probe: all that was measured.
    """

    layers: LayerSet
    smallest: LayerSet
    tried: tuple[LayerSet, ...]
    probe: Probe

    @property
    def share(self) -> float:
        return self.probe.share(self.layers)

    @property
    def place(self) -> LayerSet:
        """What to change where the concept is to change: the window, or the smallest set where no window has it."""
        return self.smallest if self.kind is Kind.SPREAD else self.layers

    @property
    def rival(self) -> LayerSet | None:
        """The best of the windows tried that share no layer with the one found."""
        apart = [window for window in self.tried if not set(window) & set(self.layers)]
        return self.probe.best(apart) if apart else None

    @property
    def kind(self) -> Kind:
        if self.probe.size < HARDLY_ANY:
            return Kind.NO_EFFECT
        if self.rival is None:
            return Kind.NO_RIVAL
        alone = self.probe.share(self.rival) <= SECOND_HOME * self.share
        few = _is_place(self.layers)
        return Kind.LOCALIZED if self.share >= LEAST_SHARE and alone and few else Kind.SPREAD

    @property
    def attention_shares(self) -> dict[LayerSet, float]:
        """Of the windows tried, the score of attention as a share of the largest; of none where the engine has none."""
        if self.probe.attention is None:
            return {}
        scores = {window: self.probe.attention[list(window)].sum() for window in self.tried}
        return {window: float(score / max(scores.values())) for window, score in scores.items()}

    @property
    def acts(self) -> tuple[int, int]:
        """When the window acts: from which step on, and up to which; the shortest stretch with most of its effect."""
        plan, probe = self.probe.plan, self.probe
        made = (probe.along[self.layers] * probe.weights).sum(0).clip(0)
        count = len(made)
        stretches = [(first, last) for first in range(count) for last in range(first + 1, count + 1)]
        enough = [ends for ends in stretches if made[slice(*ends)].sum() >= MOST * made.sum()]
        ends = [*plan.steps, plan.sampling.steps]
        first, last = min(enough, key=lambda stretch: ends[stretch[1]] - ends[stretch[0]])
        return ends[first], ends[last]


def about_rows(plan: ProbePlan, layers: ModelLayers, window_size: int = AUTO) -> int:
    """About how many rows of the denoiser it takes: one window is shrunk by a layer, and then grown by one. Joint
    blocks are scored by attention too.
    """
    tried = len(windows(len(layers), first_size(layers, window_size)))
    return plan.rows(tried + (0 if window_size else 4) + int(layers.family.joint))


def localize(prober: Prober, layers: ModelLayers, window_size: int = AUTO) -> Localization:
    """The window that makes the difference: the smallest, or the best of `window_size` layers."""
    tried = windows(len(layers), first_size(layers, window_size))
    probed = prober.measure(tried)
    window = probed.best(tried)
    found = Localization(window, window, tuple(tried), probed)
    if window_size != AUTO:
        return found
    if found.share >= MEMBER_SHARE:
        window = _fitted(prober, window)
    found = replace(found, layers=window, smallest=window, probe=prober.measure([window]))
    if found.kind is Kind.NO_EFFECT:
        return found
    if found.kind is Kind.LOCALIZED:
        smallest = smallest_set(prober, window) if len(window) > 2 else window
    else:
        smallest = smallest_set(prober, layers.all)
        window = smallest if _is_place(smallest) else window
    probed = prober.measure([window, smallest])
    if len(smallest) >= len(window) and probed.share(smallest) < probed.share(window):
        smallest = window  # it was found at one place alone, and makes less at all of them
    return replace(found, layers=window, smallest=smallest, probe=probed)


def first_size(layers: ModelLayers, window_size: int) -> int:
    """The size of the windows that are compared first: the one asked for, or the family's usual."""
    count = len(layers)
    return window_size or min(count, layers.family.first_window_size(count))


def _fitted(prober: Prober, window: LayerSet) -> LayerSet:
    """The window without the layers at its ends that make little, and with those beside it that add more."""
    count = window.layer_count
    while len(window) > 1:
        own = window.indices
        ends = [
            (LayerSet(end, count), LayerSet(rest, count)) for end, rest in ((own[:1], own[1:]), (own[-1:], own[:-1]))
        ]
        probed = prober.measure(itertools.chain(*ends))
        whole = probed.share(window)
        added = [whole - probed.share(rest) for _, rest in ends]
        made = [max(more, (more + probed.share(end)) / 2) for more, (end, _) in zip(added, ends, strict=True)]
        if min(made) >= MEMBER_SHARE:
            break
        window = ends[made.index(min(made))][1]
    while larger := [LayerSet((*window.indices, end), count) for end in _beside(window)]:
        probed = prober.measure(larger)
        more = probed.best(larger)
        if probed.share(more) - probed.share(window) < TAKEN_IN_SHARE:
            break
        window = more
    return window


def smallest_set(prober: Prober, start: LayerSet) -> LayerSet:
    """Layers of `start`, adjacent or not, none of which can be left out of what makes nearly all that `start` makes.

    Asked at one place alone, where the most of the difference is made.
    """
    place = prober.main_place
    (whole,) = prober.shares_at(place, [start])
    kept, size = start, max(1, len(start) // 2)
    while True:
        groups = [set(kept.indices[first : first + size]) for first in range(0, len(kept), size)]
        without = [_without(kept, group) for group in groups]
        shares = prober.shares_at(place, without)
        before = kept
        for _, group in sorted(zip(shares, groups, strict=True), key=lambda item: -item[0]):
            rest = _without(kept, group)
            if not rest or prober.shares_at(place, [rest])[0] < ENOUGH * whole:
                break
            kept = rest
        if size == 1 and kept == before:
            return kept
        size = max(1, size // 2)


def _without(layers: LayerSet, group: set[int]) -> LayerSet:
    return LayerSet(tuple(index for index in layers if index not in group), layers.layer_count)


def _beside(window: LayerSet) -> list[int]:
    first, last = window.indices[0], window.indices[-1]
    return [end for end in (first - 1, last + 1) if 0 <= end < window.layer_count]


def _is_place(layers: LayerSet) -> bool:
    """Whether they stand side by side, and are few."""
    adjacent = len(layers) == layers.indices[-1] - layers.indices[0] + 1
    return adjacent and len(layers) <= max(1, WIDEST * layers.layer_count)
