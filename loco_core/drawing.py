"""What edits and neurons look like, and the labelled sheets of images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont

from .comparison.erasure import ErasureResult
from .neurons.detection import Neurons
from .neurons.sweep import SweepResult

BEST, OTHER, BASELINE = "#d1495b", "#8d99ae", "#2b2d42"
SHEET_COLUMNS = 12
"""Images side by side on a before/after sheet."""
CAPTION_LINES = 5
"""Of the text above images."""
INK, PAPER, RULE = (28, 28, 32), (255, 255, 255), (209, 73, 91)


def neuron_plot(neurons: Neurons) -> np.ndarray:
    """|z| of every neuron, sorted, a line for each layer's keys and values. Returns uint8 [H, W, 3]."""
    figure = Figure(figsize=(8.0, 4.2), dpi=120, layout="constrained")
    axes = figure.subplots()
    for (layer, part), score in neurons.scores.items():
        style = "-" if part == "values" else "--"
        ranked = score.z.abs().sort(descending=True).values.numpy()
        axes.plot(np.arange(1, len(ranked) + 1), ranked, style, linewidth=1.4, label=f"layer {layer}, {part}")
    found = neurons.significant()
    if found:
        place, neuron = neurons.ranked("z")[found - 1]
        least = float(neurons.scores[place].z[neuron].abs())
        axes.axhline(least, color=BASELINE, linestyle=":", linewidth=1.2)
        axes.annotate(f"{found} neurons differ", (1, least), xytext=(4, 4), textcoords="offset points", fontsize=9)
    axes.set_xlabel("neurons of a layer, sorted")
    axes.set_ylabel("|z|")
    shown = neurons.with_concept[0]
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
    for (layer, part), score in neurons.scores.items():
        style = "-" if part == "values" else "--"
        effects = 100 * score.effect[score.signal.argsort(descending=True)].numpy()
        axes.plot(np.arange(1, len(effects) + 1), effects, style, linewidth=1.4, label=f"layer {layer}, {part}")
    axes.axhline(0, color=BASELINE, linestyle=":", linewidth=1.2)
    axes.set_xlabel("neurons of a layer, sorted by signal")
    axes.set_ylabel("effect per neuron: % removed + % kept")
    entitle(axes, f"agrees with the signal to {neurons.agreement('effect', 'signal'):.2f} (Spearman)")
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
    return rows_sheet(images, [plan.shown[pick // size] for pick in picks], labels, result.best + 1)


def rows_sheet(
    images: np.ndarray, captions: Sequence[str], labels: Sequence[tuple[str, str]], marked: int | None
) -> np.ndarray:
    """Images [rows, columns, h, w, 3] in uint8 with a caption per column and two lines per row; one row marked, or
    none.
    """
    rows, count, height, width = images.shape[:4]
    font = ImageFont.load_default(14)
    wrapped = [_wrapped(caption, font, width) for caption in captions]
    label_width, gap, header = 132, 4, 4 + 18 * max(map(len, wrapped))
    sheet = Image.new("RGB", (label_width + count * (width + gap), header + rows * (height + gap)), PAPER)
    pen = ImageDraw.Draw(sheet)
    for column, lines in enumerate(wrapped):
        pen.text((label_width + column * (width + gap), 2), "\n".join(lines), fill=INK, font=font)
    for row, label in enumerate(labels):
        top = header + row * (height + gap)
        for line, text in enumerate(label):
            pen.text((6, top + height / 2 - 18 * (1 - line)), text, fill=RULE if row == marked else INK, font=font)
        for column in range(count):
            sheet.paste(Image.fromarray(images[row, column]), (label_width + column * (width + gap), top))
        if row == marked:
            pen.rectangle([1, top - 2, sheet.width - 2, top + height + 1], outline=RULE, width=3)
    return np.array(sheet)


def sweep_plot(result: SweepResult) -> np.ndarray:
    """Removed and kept by the number of ablated neurons, the count to choose marked. Returns uint8 [H, W, 3]."""
    figure = Figure(figsize=(7.0, 4.2), dpi=120, layout="constrained")
    axes = figure.subplots()
    counts = [0, *result.counts]
    axes.plot(counts, [0, *result.removed], "o-", color=BEST, label="concept removed")
    axes.plot(counts, [1, *result.kept], "s-", color=BASELINE, label="others kept")
    axes.axvline(result.knee, color=OTHER, linestyle=":", label=f"choose {result.knee}")
    axes.set_xscale("symlog", linthresh=10)
    axes.set_xlim(-0.5, 1.1 * counts[-1])
    axes.set_xticks(counts, map(str, counts), rotation=45 if len(counts) > 8 else 0)
    axes.minorticks_off()
    axes.set_ylim(-0.03, 1.03)
    axes.set_xlabel(f"ablated neurons, of {result.total}")
    axes.set_ylabel("share")
    entitle(axes, f"ablated for: {result.before.plan.concepts[0]}")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    return drawn(figure)


def before_after_sheet(title: str, before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Images made with the same prompts and seeds, [N, H, W, 3] uint8 each, one above the other. uint8 [H, W, 3]."""
    count, height, width = before.shape[:3]
    columns = min(count, SHEET_COLUMNS)
    font = ImageFont.load_default(18)
    label_width, gap = 90, 2
    lines = _wrapped(title, font, columns * (width + gap))
    header = 8 + 22 * len(lines)
    band = 2 * (height + gap) + 4 * gap
    size = (label_width + columns * (width + gap), header + -(-count // columns) * band)
    sheet = Image.new("RGB", size, PAPER)
    pen = ImageDraw.Draw(sheet)
    pen.text((label_width, 4), "\n".join(lines), fill=INK, font=font)
    for start in range(0, count, columns):
        for row, (label, images) in enumerate((("before", before), ("after", after))):
            top = header + start // columns * band + row * (height + gap)
            pen.text((8, top + height / 2 - 10), label, fill=INK, font=font)
            for column, image in enumerate(images[start : start + columns]):
                sheet.paste(Image.fromarray(image), (label_width + column * (width + gap), top))
    return np.array(sheet)


def erasure_sheet(result: ErasureResult) -> np.ndarray:
    """The concept prompts' images before and after, the kept prompts' below. Returns uint8 [H, W, 3]."""
    split = len(result.concept.before)
    sheets = [before_after_sheet(result.verdict, result.thumbnails_before[:split], result.thumbnails_after[:split])]
    if result.kept:
        title = "to keep: " + ", ".join(result.kept)
        sheets.append(before_after_sheet(title, result.thumbnails_before[split:], result.thumbnails_after[split:]))
    width = max(sheet.shape[1] for sheet in sheets)
    padded = [np.pad(s, ((0, 0), (0, width - s.shape[1]), (0, 0)), constant_values=255) for s in sheets]
    return np.concatenate(padded)


def entitle(axes: Axes, text: str) -> None:
    """Puts a title above, on as many lines as it needs; a prompt may hold a dollar sign, which begins no formula."""
    axes.set_title(text.replace("$", r"\$"), fontsize=10, wrap=True)


def drawn(figure: Figure) -> np.ndarray:
    """The figure as uint8 [H, W, 3]."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _wrapped(text: str, font: ImageFont.FreeTypeFont, width: int) -> list[str]:
    """The text in lines of `width` pixels, unless a word is longer; what CAPTION_LINES cannot hold is cut."""
    lines = [""]
    for word in text.split():
        if lines[-1] and font.getlength(f"{lines[-1]} {word}") > width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    if len(lines) > CAPTION_LINES:
        lines[CAPTION_LINES - 1 :] = [lines[CAPTION_LINES - 1] + "\u2026"]
    return lines
