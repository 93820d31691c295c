"""What a probe and a search look like: the map of shares, scores, the model with its layers coloured, the images."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, Rectangle
from matplotlib.ticker import PercentFormatter

from ..drawing import BASELINE, BEST, OTHER, drawn, entitle, rows_sheet
from ..models.family import PlacedBlock
from ..models.layers import LayerSet, ModelLayers, Part
from ..prompt_text import plain_text
from ..prompts import Attribute
from .localize import Localization
from .search import SearchResult

# Images side by side on the contact sheet.
COLUMNS = 8
# Up to so many windows a map has room for numbers.
LABELLED = 20
# From no effect to that of all layers.
WARM = LinearSegmentedColormap.from_list("effect", ["#f1f2f5", "#f3b8a5", BEST])


def search_plot(result: SearchResult) -> np.ndarray:
    """What windows were compared by: the probe's map, or the images' scores. Returns uint8 [H, W, 3]."""
    if result.verdict is None and result.located is not None:
        return probe_map(result.located)
    return _score_plot(result)


def _score_plot(result: SearchResult) -> np.ndarray:
    """The effect of every window with its 95 % interval, that of all layers as a line, and as a bar where no window was
    tried. Returns uint8 [H, W, 3].
    """
    plan, tried = result.plan, list(result.shares) or [result.table.whole]
    figure = Figure(figsize=(max(7.0, 0.5 * min(len(tried), 40) + 2), 4.2), dpi=120, layout="constrained")
    axes = figure.subplots()
    effects = [result.effect(window) for window in tried]
    places = np.arange(len(tried))
    colours = [BEST if window == result.layers else OTHER for window in tried]
    axes.bar(places, [effect.mean for effect in effects], color=colours, width=0.72)
    reach = [effect.high - effect.mean if effect.freedom else 0.0 for effect in effects]
    axes.errorbar(places, [e.mean for e in effects], yerr=reach, fmt="none", ecolor=BASELINE, capsize=2)
    whole = result.effect(result.table.whole)
    axes.axhline(whole.mean, color=BASELINE, linestyle="--", linewidth=1.2, label=f"all layers: {whole.mean:.1f}")
    axes.axhline(0, color=BASELINE, linewidth=0.8)
    shown = [effect.mean for effect in effects] + [whole.mean, 0.0]
    margin = 0.25 * (max(shown) - min(shown)) + 0.1
    axes.set_ylim(min(shown) - margin, max(shown) + margin)  # a window known from two images has an endless interval
    axes.set_xticks(places, [str(window) for window in tried], rotation=90 if len(places) > 20 else 0)
    part = "" if plan.part is Part.BOTH else f", {plan.part} only"
    axes.set_xlabel(f"layers that get the target prompt{part}")
    direction = "gain against the target" if plan.attribute is Attribute.FACT else "loss against the concept"
    axes.set_ylabel(f"CLIP-Score: {direction}")
    found = f"layers {result.layers}, {result.kind}" if result.layers else result.kind
    concept, target = plain_text(plan.pairs[0].concept), plain_text(plan.pairs[0].target)
    entitle(axes, f"{plan.attribute}: {concept} \u2192 {target}\n{found}")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="lower right", bbox_to_anchor=(1, 1))
    return drawn(figure)


def layer_shares(shares: Mapping[LayerSet, float], layer_count: int) -> np.ndarray:
    """The share of the best of some windows that each layer is in, 0..1; NaN where it is in none: [layers]."""
    best = np.full(layer_count, np.nan)
    for window, share in shares.items():
        best[list(window)] = np.fmax(best[list(window)], np.clip(share, 0, 1))
    return best


def model_figure(result: SearchResult, layers: ModelLayers) -> np.ndarray:
    """The model with each layer coloured by the best window that it is in. Returns uint8 [H, W, 3]."""
    found = f"layers {result.layers}" if result.layers else "no layers"
    title = f"{plain_text(result.plan.pairs[0].concept)}\n{result.kind}: {found}"
    return _layers_figure(result.shares, result.layers, layers, title)


def probe_figure(found: Localization, layers: ModelLayers) -> np.ndarray:
    """The same of a probe alone."""
    shares = {window: found.probe.share(window) for window in found.tried}
    return _layers_figure(shares, found.layers, layers, _probe_title(found))


def probe_map(found: Localization) -> np.ndarray:
    """The share of every window at every noise level, from pure noise above to the image below: uint8 [H, W, 3]."""
    tried, probed, plan = found.tried, found.probe, found.probe.plan
    shares = np.stack([probed.shares_by_level(window) for window in tried], 1)
    figure = Figure(figsize=(max(7.0, 0.55 * min(len(tried), 50) + 2), 1.9 + 0.32 * len(shares)), dpi=120)
    figure.set_layout_engine("constrained")
    axes = figure.subplots()
    shown = axes.imshow(shares, cmap=WARM, vmin=0, vmax=1, aspect="auto")
    if len(tried) <= LABELLED:
        for (level, place), share in np.ndenumerate(shares):
            axes.text(place, level, str(round(100 * share)), ha="center", va="center", fontsize=7)
    axes.set_xticks(range(len(tried)), [str(window) for window in tried], rotation=90 if len(tried) > LABELLED else 0)
    done = [step / plan.sampling.steps for step in plan.steps]
    axes.set_yticks(
        range(len(done)),
        [f"{share:.0%}: {made:.0%} of it" for share, made in zip(done, probed.level_shares, strict=True)],
    )
    axes.set_xlabel("layers that get the target prompt")
    axes.set_ylabel("of the denoising done")
    entitle(axes, _probe_title(found))
    figure.colorbar(shown, ax=axes, label="share of the difference", format=PercentFormatter(1))
    return drawn(figure)


def _probe_title(found: Localization) -> str:
    pair = found.probe.plan.pairs[0]
    return f"{plain_text(pair.concept)} \u2192 {plain_text(pair.target)}\n{found.kind}: layers {found.layers}"


def _layers_figure(windows: Mapping[LayerSet, float], found: LayerSet, layers: ModelLayers, title: str) -> np.ndarray:
    """The model's blocks in their places, with their text layers as boxes coloured by `layer_shares`, those found
    outlined. Returns uint8 [H, W, 3].
    """
    shares = layer_shares(windows, len(layers))
    plan = layers.family.floor_plan(layers)
    rows, widest = plan.rows, plan.widest
    span = widest + 1.6  # from one column of blocks to the next
    figure = Figure(figsize=(max(7.0, 1.2 * widest + 4), 1.0 + 0.55 * (rows + 2)), dpi=120, layout="constrained")
    axes = figure.subplots()
    for block in plan.blocks:
        left, bottom = span * block.column, float(rows - block.row)
        _name_block(axes, block, left, bottom)
        for offset, index in enumerate(block.indices):
            _draw_layer(axes, (left + offset, bottom), index, shares[index], index in found)
    _draw_arrow(axes, -1.5, rows + 0.4, 0.6)
    _draw_arrow(axes, span + widest + 1.3, 0.6, rows + 0.4)
    for heading in plan.headings:
        axes.text(span * heading.column, rows - heading.row, heading.text, fontsize=10, color=BASELINE)
    axes.set(xlim=(-1.8, span + widest + 1.6), ylim=(-1.3, rows + 1.7))
    axes.axis("off")
    entitle(axes, title)
    scale = ScalarMappable(Normalize(0, 1), WARM)
    figure.colorbar(scale, ax=axes, shrink=0.6, label="the best window with the layer,\nas a share of all layers")
    return drawn(figure)


def _draw_arrow(axes: Axes, left: float, start: float, end: float) -> None:
    """The way of the image through the model."""
    axes.add_patch(
        FancyArrowPatch((left, start), (left, end), arrowstyle="-|>", mutation_scale=12, color=OTHER, linewidth=1.4)
    )


def _name_block(axes: Axes, block: PlacedBlock, left: float, bottom: float) -> None:
    """The block's name, outside of the model."""
    place, alignment = (left - 0.25, "right") if block.column < 1 else (left + len(block.indices) + 0.25, "left")
    axes.text(place, bottom + 0.4, block.name, ha=alignment, va="center", fontsize=8, color=BASELINE)


def _draw_layer(axes: Axes, corner: tuple[float, float], index: int, share: float, found: bool) -> None:
    """A box with the layer's index."""
    left, bottom = corner
    axes.add_patch(
        Rectangle(
            (left + 0.04, bottom),
            0.92,
            0.8,
            facecolor="white" if np.isnan(share) else WARM(share),
            edgecolor=BASELINE if found else OTHER,
            linewidth=2.4 if found else 0.6,
            zorder=2 if found else 1,
        )
    )
    weight = "bold" if found else "normal"
    axes.text(left + 0.5, bottom + 0.4, str(index), ha="center", va="center", fontsize=8, weight=weight)


def contact_sheet(result: SearchResult) -> np.ndarray:
    """A row of images per set of layers, below the unmodified ones and those of all layers; the window found marked.

    Returns uint8 [H, W, 3].
    """
    count = min(COLUMNS, len(result.plan.images))
    pictures = result.pictures(count)
    captions = [plain_text(pair.concept) for pair, _ in result.plan.images[:count]]
    labels = [(_name(layers, result), _score_label(layers, result)) for layers in pictures]
    marked = list(pictures).index(result.layers) if result.layers else None
    return rows_sheet(np.stack([np.stack(row) for row in pictures.values()]), captions, labels, marked)


def _name(layers: LayerSet | None, result: SearchResult) -> str:
    if layers is None:
        return "unmodified"
    return "all layers" if layers == result.table.whole else f"layers {layers}"


def _score_label(layers: LayerSet | None, result: SearchResult) -> str:
    """The mean score of a row's images; where nobody has scored them, the probe's share."""
    if result.scored:
        return f"score {result.table.scores(layers).mean():.1f}"
    if layers is None or result.located is None or layers not in result.located.probe.along:
        return ""
    return f"share {result.located.probe.share(layers):.0%}"
