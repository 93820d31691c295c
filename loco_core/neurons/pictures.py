"""Plots of neurons' scores and effects, and of a sweep."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from ..drawing import BASELINE, BEST, DPI, HEIGHT, OTHER, WIDTH, drawn, entitle, rows_sheet
from ..models.layers import Part
from ..prompt_text import plain_text
from ..report import percent
from .detection import Neurons, Ranking
from .report import agreement_text
from .sweep import SweepResult

# Of more counts the names are turned.
MANY = 8


def neuron_plot(neurons: Neurons) -> np.ndarray:
    """How much of what the concept adds passes through the first neurons by signal. Returns uint8 [H, W, 3]."""
    shares = neurons.passed_on()
    half = int(np.searchsorted(shares, 0.5)) + 1
    figure, axes = _plot()
    axes.plot(np.arange(len(shares) + 1), [0, *shares], color=BEST, linewidth=2)
    axes.plot([half, half, 0], [0, 0.5, 0.5], ":", color=BASELINE, linewidth=1.2)
    axes.annotate(f"half: {half} neurons", (half, 0.5), xytext=(6, -10), textcoords="offset points", fontsize=9)
    axes.set(xlim=(0, len(shares)), ylim=(0, 1.03))
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.set_xlabel("neurons, those that pass on most of it first", fontsize=9)
    axes.set_ylabel("of what the concept adds", fontsize=9)
    entitle(axes, f"{plain_text(neurons.with_concept[0])} and {len(neurons.with_concept) - 1} more")
    return drawn(figure)


def _plot() -> tuple[Figure, Axes]:
    figure = Figure(figsize=(WIDTH, HEIGHT), dpi=DPI, layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)
    return figure, axes


def effect_plot(neurons: Neurons) -> np.ndarray:
    """The measured effect of every neuron against its rank by signal, a line for each layer's keys and values.

    Returns uint8 [H, W, 3].
    """
    figure, axes = _plot()
    for (layer, projection), score in neurons.scores.items():
        style = "-" if projection is Part.VALUES else "--"
        if score.effect is None:
            raise ValueError("neurons: their effects were not measured")
        effects = 100 * score.effect[score.signal.argsort(descending=True)].numpy()
        axes.plot(np.arange(1, len(effects) + 1), effects, style, linewidth=1.4, label=f"layer {layer}, {projection}")
    axes.axhline(0, color=BASELINE, linestyle=":", linewidth=1.2)
    axes.set_xlabel("neurons of a layer, sorted by signal", fontsize=9)
    axes.set_ylabel("effect per neuron: % removed + % kept", fontsize=9)
    entitle(axes, f"effect and signal {agreement_text(neurons, Ranking.EFFECT, Ranking.SIGNAL)}")
    axes.legend(frameon=False, ncols=1 + len(neurons.scores) // 9, fontsize=8)
    return drawn(figure)


def sweep_sheet(result: SweepResult, most_columns: int = 8) -> np.ndarray:
    """A row of images per count, the unmodified ones first, the count to choose marked: half of the columns show
    concept prompts, half kept prompts. Returns uint8 [H, W, 3].
    """
    plan, first = result.before.plan, result.results[0]
    split, size = len(first.concept.before), len(plan.seeds)
    half = most_columns // 2
    picks = [*range(split)][:half] + [*range(split, len(first.thumbnails_before))][::size][:half]
    images = np.stack([first.thumbnails_before[picks], *(one.thumbnails_after[picks] for one in result.results)])
    labels = [("unmodified", "")]
    for count, removed, kept in zip(result.counts, result.removed, result.kept, strict=True):
        labels.append((f"{count} neurons", f"gone {percent(removed)}, kept {percent(kept)}"))
    captions = [plain_text(plan.shown[pick // size]) for pick in picks]
    return rows_sheet(images, captions, labels, result.best)


def sweep_plot(result: SweepResult) -> np.ndarray:
    """Removed and kept by the number of ablated neurons, the count to choose marked. Returns uint8 [H, W, 3]."""
    figure, axes = _plot()
    counts = [0, *result.counts]
    places = range(len(counts))
    axes.plot(places, [0, *result.removed], "o-", color=BEST, label="concept removed")
    axes.plot(places, [1, *result.kept], "s-", color=BASELINE, label="others kept")
    axes.axvline(counts.index(result.knee), color=OTHER, linestyle=":", label=f"choose {result.knee or 'none'}")
    axes.set_xticks(places, map(str, counts), rotation=45 if len(counts) > MANY else 0)
    axes.set_ylim(-0.03, 1.03)
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.set_xlabel(f"ablated neurons, of {result.total}", fontsize=9)
    entitle(axes, f"ablated for: {plain_text(result.before.plan.concepts[0])}")
    axes.legend(frameon=False, fontsize=9)
    return drawn(figure)
