"""What a probe and a search look like: the model with its layers coloured, above a map of shares or scores; images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, Rectangle
from matplotlib.ticker import PercentFormatter

from ..drawing import BASELINE, BEST, DPI, OTHER, WIDTH, drawn, entitle, rows_sheet
from ..models.family import PlacedBlock
from ..models.layers import LayerSet, ModelLayers, Part
from ..prompt_text import plain_text
from ..prompts import Attribute
from ..report import percent
from .localize import Localization
from .search import SearchResult

# Images side by side on the contact sheet, and its rows where not all are asked for.
COLUMNS, ROWS = 8, 8
# Up to so many windows all are named, and a map has room for numbers; of more, about so many are named.
LABELLED, NAMED = 20, 10
# An interval of fewer images says little, and hides the others.
LEAST_IMAGES = 4
# Of more boxes side by side the letters are smaller.
SIDE_BY_SIDE = 4
# Room for a letter of a block's name, in widths of a layer's box.
BLOCK_NAME = 0.35
# From no effect to that of all layers.
WARM = LinearSegmentedColormap.from_list("effect", ["#f1f2f5", "#f3b8a5", BEST])


def search_picture(result: SearchResult, layers: ModelLayers) -> np.ndarray:
    """The model, each layer coloured by the best window that it is in, above what windows were compared by: the probe's
    map, or the images' scores. Returns uint8 [H, W, 3].
    """
    if result.verdict is None and result.located is not None:
        return probe_picture(result.located, layers)
    found = f"{result.layers.named}, {result.kind}" if result.layers else str(result.kind)
    pair = result.plan.pairs[0]
    figure, above, below = _figure(layers, 2.6)
    _draw_model(above, layer_shares(result.shares, len(layers)), result.layers, layers)
    _draw_scores(below, result)
    _colorbar(figure, [above], "of all layers' effect")
    entitle(above, f"{plain_text(pair.concept)} \u2192 {plain_text(pair.target)}\n{found}")
    return drawn(figure)


def probe_picture(found: Localization, layers: ModelLayers) -> np.ndarray:
    """The model, each layer coloured by the best window that it is in, above the share of every window at every noise
    level, from pure noise above to the image below; where blocks are scored by attention too, that in a row of its own.
    Returns uint8 [H, W, 3].
    """
    pair = found.probe.plan.pairs[0]
    shares = {window: found.probe.share(window) for window in found.tried}
    figure, above, below = _figure(layers, 1.1 + 0.25 * (len(found.probe.plan.steps) + bool(found.attention_shares)))
    _draw_model(above, layer_shares(shares, len(layers)), found.layers, layers)
    _draw_map(below, found)
    _colorbar(figure, [above, below], "share of the difference")
    title = f"{plain_text(pair.concept)} \u2192 {plain_text(pair.target)}"
    entitle(above, f"{title}\n{found.layers.named}, {found.kind}")
    return drawn(figure)


def _figure(layers: ModelLayers, height: float) -> tuple[Figure, Axes, Axes]:
    """A figure with room for the model, and for what is below it, `height` inches high."""
    model = 0.26 * (layers.family.floor_plan(layers).rows + 3)
    figure = Figure(figsize=(WIDTH, model + height), dpi=DPI, layout="constrained")
    above, below = figure.subplots(2, 1, height_ratios=(model, height))
    return figure, above, below


def _colorbar(figure: Figure, axes: list[Axes], label: str) -> None:
    scale = ScalarMappable(Normalize(0, 1), WARM)
    bar = figure.colorbar(scale, ax=axes, label=label, format=PercentFormatter(1), aspect=30, pad=0.02)
    bar.ax.tick_params(labelsize=8)


def _draw_map(axes: Axes, found: Localization) -> None:
    tried, plan = found.tried, found.probe.plan
    shares = np.stack([found.probe.shares_by_level(window) for window in tried], 1)
    if by_attention := found.attention_shares:
        shares = np.vstack([shares, [by_attention[window] for window in tried]])
        axes.axhline(len(plan.steps) - 0.5, color="white", linewidth=4)
    axes.imshow(shares, cmap=WARM, vmin=0, vmax=1, aspect="auto")
    if len(tried) <= LABELLED:
        for (level, place), share in np.ndenumerate(shares):
            axes.text(place, level, str(round(100 * share)), ha="center", va="center", fontsize=7)
    _name_windows(axes, tried)
    done = [step / plan.sampling.steps for step in plan.steps]
    parts = zip(done, found.probe.level_shares, strict=True)
    names = [f"{share:.0%} done\n{part:.0%} of effect" for share, part in parts]
    names += ["by attention,\nmost is 100%"] if by_attention else []
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.set_xlabel("layers that get the target prompt", fontsize=9)
    axes.set_ylabel("denoising", fontsize=9)


def _draw_scores(axes: Axes, result: SearchResult) -> None:
    """The effect of every window, with its 95 % interval where there are images enough, beside that of all layers,
    which stands alone where no window was tried.
    """
    plan, tried = result.plan, list(result.shares) or [result.table.whole]
    whole = result.effect(result.table.whole).mean
    shown = [whole, 0.0]
    for place, window in enumerate(tried):
        effect, colour = result.effect(window), BEST if window == result.layers else OTHER
        shown.append(effect.mean)
        if effect.freedom and effect.images >= LEAST_IMAGES:
            axes.vlines(place, effect.low, effect.high, color=colour, linewidth=1.2, alpha=0.5)
            shown += [effect.low, effect.high] if window == result.layers else []
        axes.plot(place, effect.mean, "o", color=colour, markersize=6 if window == result.layers else 4)
    axes.axhline(whole, color=BASELINE, linestyle="--", linewidth=1.2)
    axes.text(len(tried) - 0.5, whole, f"all layers: {whole:.1f}", ha="right", va="bottom", fontsize=9)
    axes.axhline(0, color=BASELINE, linewidth=0.8)
    margin = 0.15 * (max(shown) - min(shown)) + 0.1
    axes.set_ylim(min(shown) - margin, max(shown) + margin)
    axes.set_xlim(-0.6, len(tried) - 0.4)
    _name_windows(axes, tried)
    part = "" if plan.part is Part.BOTH else f", {plan.part} only"
    axes.set_xlabel(f"layers that get the target prompt{part}", fontsize=9)
    direction = "gain against the target" if plan.attribute is Attribute.FACT else "loss against the concept"
    axes.set_ylabel(f"CLIP-Score:\n{direction}", fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)


def _name_windows(axes: Axes, tried: Sequence[LayerSet]) -> None:
    """Names all windows, or some of many."""
    named = range(0, len(tried), 1 if len(tried) <= LABELLED else -(-len(tried) // NAMED))
    axes.set_xticks(named, [str(tried[place]) for place in named], fontsize=8)
    axes.tick_params(axis="x", rotation=90 if len(named) > NAMED else 0)
    axes.tick_params(axis="y", labelsize=8)


def layer_shares(shares: Mapping[LayerSet, float], layer_count: int) -> np.ndarray:
    """The share of the best of some windows that each layer is in, 0..1; NaN where it is in none: [layers]."""
    best = np.full(layer_count, np.nan)
    for window, share in shares.items():
        best[list(window)] = np.fmax(best[list(window)], np.clip(share, 0, 1))
    return best


def _draw_model(axes: Axes, shares: np.ndarray, found: LayerSet, layers: ModelLayers) -> None:
    """The model's blocks in their places, with their text layers as boxes coloured by `shares` [layers], those found
    outlined.
    """
    plan = layers.family.floor_plan(layers)
    rows, widest = plan.rows, plan.widest
    span = widest + 1.6  # from one column of blocks to the next
    for block in plan.blocks:
        left, bottom = span * block.column, float(rows - block.row)
        _name_block(axes, block, left, bottom)
        for offset, index in enumerate(block.indices):
            _draw_layer(axes, (left + offset, bottom), shares[index], index in found)
            size, weight = 8 if widest <= SIDE_BY_SIDE else 6, "bold" if index in found else "normal"
            place = left + offset + 0.5, bottom + 0.4
            axes.text(*place, str(index), ha="center", va="center", fontsize=size, weight=weight)
    names = BLOCK_NAME * max(len(block.name) for block in plan.blocks)  # the room that they take on a side
    _draw_arrow(axes, -0.7 - names, rows + 0.4, 0.6)
    right = widest + 0.6
    if plan.both_ways:
        right = span + widest + 1.0 + names
        _draw_arrow(axes, right - 0.3, 0.6, rows + 0.4)
    for heading in plan.headings:
        axes.text(span * heading.column, rows - heading.row, heading.text, fontsize=9, color=BASELINE)
    axes.set(xlim=(-1.0 - names, right), ylim=(-1.3 if plan.both_ways else 0.0, rows + 1.7))
    axes.axis("off")


def _draw_arrow(axes: Axes, left: float, start: float, end: float) -> None:
    """The way of the image through the model."""
    axes.add_patch(
        FancyArrowPatch((left, start), (left, end), arrowstyle="-|>", mutation_scale=12, color=OTHER, linewidth=1.4)
    )


def _name_block(axes: Axes, block: PlacedBlock, left: float, bottom: float) -> None:
    """The block's name, outside of the model."""
    place, alignment = (left - 0.25, "right") if block.column < 1 else (left + len(block.indices) + 0.25, "left")
    axes.text(place, bottom + 0.4, block.name, ha=alignment, va="center", fontsize=8, color=BASELINE)


def _draw_layer(axes: Axes, corner: tuple[float, float], share: float, found: bool) -> None:
    """A box of the layer's colour."""
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


def contact_sheet(result: SearchResult, every: bool = False) -> np.ndarray:
    """A row of images per set of layers, below the unmodified ones and those of all layers; the window found marked.
    Of many sets those with the most effect, or `every` one.

    Returns uint8 [H, W, 3].
    """
    count = min(COLUMNS, len(result.plan.images))
    pictures = result.pictures(count)
    shown = list(pictures)
    if not every and len(shown) > ROWS:
        first = dict.fromkeys([None, result.table.whole, *([result.layers] if result.layers else [])])
        best = sorted(result.shares, key=lambda layers: -result.shares[layers])
        shown = list(dict.fromkeys([*first, *best]))[:ROWS]
    captions = [plain_text(pair.concept) for pair, _ in result.plan.images[:count]]
    labels = [(_name(layers, result), _score_label(layers, result)) for layers in shown]
    marked = shown.index(result.layers) if result.layers else None
    return rows_sheet(np.stack([np.stack(pictures[layers]) for layers in shown]), captions, labels, marked)


def _name(layers: LayerSet | None, result: SearchResult) -> str:
    if layers is None:
        return "unmodified"
    return "all layers" if layers == result.table.whole else layers.named


def _score_label(layers: LayerSet | None, result: SearchResult) -> str:
    """The mean score of a row's images; where nobody has scored them, the probe's share."""
    if result.scored:
        return f"score {result.table.scores(layers).mean():.1f}"
    if layers is None or result.located is None or layers not in result.located.probe.along:
        return ""
    return f"share {percent(result.located.probe.share(layers))}"
