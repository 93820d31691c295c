"""Plots of neurons' scores and effects, and of a sweep."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from ..drawing import BASELINE, BEST, OTHER, drawn, entitle, rows_sheet
from ..models.layers import Part
from ..prompt_text import plain_text
from .detection import Neurons, Ranking
from .report import agreement_text
from .sweep import SweepResult


def neuron_plot(neurons: Neurons) -> np.ndarray:
    """|z| of every neuron, sorted, a line for each layer's keys and values. Returns uint8 [H, W, 3]."""
    figure = Figure(figsize=(8.0, 4.2), dpi=120, layout="constrained")
    axes = figure.subplots()
    for (layer, projection), score in neurons.scores.items():
        style = "-" if projection is Part.VALUES else "--"
        ranked = score.z.abs().sort(descending=True).values.numpy()
        axes.plot(np.arange(1, len(ranked) + 1), ranked, style, linewidth=1.4, label=f"layer {layer}, {projection}")
    found = neurons.significant()
    if found:
        place, neuron = neurons.ranked(Ranking.Z)[found - 1]
        least = float(neurons.scores[place].z[neuron].abs())
        axes.axhline(least, color=BASELINE, linestyle=":", linewidth=1.2)
        axes.annotate(f"{found} neurons differ", (1, least), xytext=(4, 4), textcoords="offset points", fontsize=9)
    axes.set_xlabel("neurons of a layer, sorted")
    axes.set_ylabel("|z|")
    shown = plain_text(neurons.with_concept[0])
    entitle(axes, f"with the concept: {shown} and {len(neurons.with_concept) - 1} more")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, ncols=1 + len(neurons.scores) // 9, fontsize=8)
    return drawn(figure)


def effect_plot(neurons: Neurons) -> np.ndarray:
    """The measured effect of every neuron against its rank by signal, a line for each layer's keys and values.

    Returns uint8 [H, W, 3].
    """
    figure = Figure(figsize=(8.0, 4.2), dpi=120, layout="constrained")
    axes = figure.subplots()
    for (layer, projection), score in neurons.scores.items():
        style = "-" if projection is Part.VALUES else "--"
        if score.effect is None:
            raise ValueError("neurons: their effects were not measured")
        effects = 100 * score.effect[score.signal.argsort(descending=True)].numpy()
        axes.plot(np.arange(1, len(effects) + 1), effects, style, linewidth=1.4, label=f"layer {layer}, {projection}")
    axes.axhline(0, color=BASELINE, linestyle=":", linewidth=1.2)
    axes.set_xlabel("neurons of a layer, sorted by signal")
    axes.set_ylabel("effect per neuron: % removed + % kept")
    entitle(axes, f"effect and signal {agreement_text(neurons, Ranking.EFFECT, Ranking.SIGNAL)}")
    axes.spines[["top", "right"]].set_visible(False)
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
        labels.append((f"{count} neurons", f"-{removed:.0%}, kept {kept:.0%}"))
    captions = [plain_text(plan.shown[pick // size]) for pick in picks]
    return rows_sheet(images, captions, labels, result.best)


def sweep_plot(result: SweepResult) -> np.ndarray:
    """Removed and kept by the number of ablated neurons, the count to choose marked. Returns uint8 [H, W, 3]."""
    figure = Figure(figsize=(7.0, 4.2), dpi=120, layout="constrained")
    axes = figure.subplots()
    counts = [0, *result.counts]
    axes.plot(counts, [0, *result.removed], "o-", color=BEST, label="concept removed")
    axes.plot(counts, [1, *result.kept], "s-", color=BASELINE, label="others kept")
    axes.axvline(result.knee, color=OTHER, linestyle=":", label=f"choose {result.knee or 'none'}")
    axes.set_xscale("symlog", linthresh=10)
    axes.set_xlim(-0.5, 1.1 * counts[-1])
    axes.set_xticks(counts, map(str, counts), rotation=45 if len(counts) > 8 else 0)
    axes.minorticks_off()
    axes.set_ylim(-0.03, 1.03)
    axes.set_xlabel(f"ablated neurons, of {result.total}")
    axes.set_ylabel("share")
    entitle(axes, f"ablated for: {plain_text(result.before.plan.concepts[0])}")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    return drawn(figure)
