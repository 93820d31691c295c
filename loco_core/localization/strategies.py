"""How a search spends its images: on every window alike, or where the answer is still open.

`exhaustive` is the paper's search: every window on every image. `race` is for the same answer at a fraction of the
images. It is a race by confidence bounds (LUCB; Kalyanakrishnan et al., 2012), on images of few steps:

1. Every window gets a few images, the same for all.
2. The leader is the window with the greatest mean effect. A window is out once its upper bound, mean + BOUND standard
   errors, is below the leader's lower bound. Of those still in, the ones with the highest upper bounds get more images,
   a few at a time: the leader to be surer of it, the others to catch up with it or to fall out.
3. It ends when one window is in, when all that are in have all images, or when the budget is spent; the leader wins.

A window's standard error comes from its own images, with a little weight on what is usual for all windows: images of
few are a poor estimate. Noise differs between windows by far (a window without effect changes nothing; one with an
effect works better in some images than in others), which is why a bound is used and not the rank of the means.

Guarantee: where the bounds hold, the best window is never put out, so a race that ends before its budget ends with the
best window. At BOUND = 3 a bound fails once in 700 times for a window with many images, more often for one with few.
Where the budget ends it, the leader is the best guess, and the verdict says how sure it is. Wide windows first, halved
where they show an effect, were tried too: with scores as noisy as the demo model's they lose the window more often
than this saves images (a wide window varies as much between images as the narrow one in it).

`grown` chooses the window's size: while a neighbouring layer adds to the effect, the window takes it in.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ..choices import Choice
from ..models.layers import LayerSet
from ..scoring.intervals import margin
from .score_table import ScoreTable


class Effort(Choice):
    """How much work a search may do."""

    FAST = "fast"
    BALANCED = "balanced"
    EXHAUSTIVE = "exhaustive"


# What a race may spend, in images of full steps: this times sqrt(1 + windows) for every image of the plan. Of the
# exhaustive search's, "balanced" is 20 % with 15 windows and 10 % with 66. Its first round is made in any case.
BUDGETS = {Effort.FAST: 0.4, Effort.BALANCED: 0.8, Effort.EXHAUSTIVE: math.inf}
# How many standard errors above its mean a window's upper bound is.
BOUND = 3.0
# The weight of the variance that is usual for all windows, in images.
PRIOR_IMAGES = 0.5
# A race's images have a quarter of the steps, but at least FEWEST_STEPS. On the demo model the windows' effects are
# then the same: see benchmarks/search.py.
STEPS_SHARE = 4
FEWEST_STEPS = 5
# Windows that get more images in a round.
AT_ONCE = 4
# A layer is added to a window from this share of the effect of all layers on.
ADDS = 0.1


def quick_steps(steps: int) -> int:
    """The steps of a race's images, where the search's own have `steps`."""
    return min(steps, max(FEWEST_STEPS, math.ceil(steps / STEPS_SHARE)))


def first_round(images: int) -> int:
    """How many of its `images` each window gets in the first round, and some windows in each later round."""
    return min(images, max(2, images // 8))


def affordable(effort: Effort, windows: int, images: int) -> float:
    """Images of full steps that an effort may cost with so many windows and images for each."""
    return min(BUDGETS[effort] * math.sqrt(1 + windows), 1.0 + windows) * images


def exhaustive(table: ScoreTable, windows: Sequence[LayerSet]) -> LayerSet:
    """Every window on every image; the one with the greatest mean effect."""
    table.ask(dict.fromkeys(windows, table.images))
    return max(windows, key=lambda window: table.effects(window).mean())


def race(table: ScoreTable, windows: Sequence[LayerSet], most: float) -> LayerSet:
    """The window with the greatest effect, with at most about `most` more images in the table."""
    step = first_round(table.images)
    end = table.made + most
    table.ask(dict.fromkeys(windows, step))
    while True:
        means, errors = _means_and_errors(table, windows)
        leader = int(means.argmax())
        counts = np.array([table.count(window) for window in windows])
        upper, lower = means + BOUND * errors, means[leader] - BOUND * errors[leader]
        rivals = (upper >= lower) & (np.arange(len(windows)) != leader)
        unsure = [i for i in np.argsort(-upper) if counts[i] < table.images and (rivals[i] or i == leader)]
        if not rivals.any() or not unsure or table.made >= end:
            return windows[leader]
        table.ask({windows[i]: int(counts[i]) + step for i in unsure[:AT_ONCE]})


def _means_and_errors(table: ScoreTable, windows: Sequence[LayerSet]) -> tuple[np.ndarray, np.ndarray]:
    """Each window's mean effect and its standard error: [windows] each."""
    effects = [table.effects(window) for window in windows]
    counts = np.array([len(own) for own in effects])
    squares = np.array([((own - own.mean()) ** 2).sum() for own in effects])
    usual = squares.sum() / max((counts - 1).sum(), 1)
    variances = (squares + PRIOR_IMAGES * usual) / (counts - 1 + PRIOR_IMAGES)
    return np.array([own.mean() for own in effects]), np.sqrt(variances / counts)


def grown(table: ScoreTable, window: LayerSet, whole: float, pairs: int) -> LayerSet:
    """The window after taking in neighbouring layers as long as each adds to the effect, and leaving out what adds
    none: from the paper's section 5.2, the smallest size at which the effect saturates.

    `whole` is the effect of all layers. The windows one layer larger on either side are tried on as many images as the
    window has; when neither adds, those one layer smaller.
    """
    count = max(table.count(window), min(table.images, 2 * pairs))
    while len(window) < window.layer_count:
        larger = [w for w in (_with(window, -1, 0), _with(window, 0, 1)) if w]
        table.ask(dict.fromkeys([window, *larger], count))
        best = max(larger, key=lambda w: table.effects(w).mean())
        gain = margin(table.effects(best), table.effects(window), pairs)
        if not (gain.low > 0 and gain.mean > ADDS * whole):
            break
        window = best
    while len(window) > 1:
        smaller = [w for w in (_with(window, 1, 0), _with(window, 0, -1)) if w]
        table.ask(dict.fromkeys([window, *smaller], count))
        best = max(smaller, key=lambda w: table.effects(w).mean())
        if margin(table.effects(window), table.effects(best), pairs).mean > ADDS * whole:
            break
        window = best
    return window


def _with(window: LayerSet, first: int, last: int) -> LayerSet | None:
    """The window with its ends moved, where there are such layers."""
    start, stop = window.indices[0] + first, window.indices[-1] + last
    if not 0 <= start <= stop < window.layer_count:
        return None
    return LayerSet(tuple(range(start, stop + 1)), window.layer_count)
