"""Sheets of labelled images, and what all plots have in common."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont

from .lettering import Font, lettered, wrapped

# Colours of plots: what is best, all others, and what they are compared with.
BEST, OTHER, BASELINE = "#d1495b", "#8d99ae", "#2b2d42"
# Colours of sheets: text, background, and the frame of a marked row.
INK, PAPER, RULE = (28, 28, 32), (255, 255, 255), (209, 73, 91)
# Inches of a plot, and their dots: on a node, some 400 pixels wide, its letters are read.
WIDTH, HEIGHT, DPI = 5.6, 3.4, 150
# Images side by side on a before/after sheet.
SHEET_COLUMNS = 12
# Lines of the text above images.
CAPTION_LINES = 5
# Titles of plots: their size, and the share of the plot's width that their lines take.
TITLE_POINTS, TITLE_SHARE = 10, 0.9
POINTS_PER_INCH = 72


def rows_sheet(
    images: np.ndarray, captions: Sequence[str], labels: Sequence[tuple[str, str]], marked: int | None
) -> np.ndarray:
    """Images [rows, columns, h, w, 3] in uint8 with a caption per column and two lines per row; one row marked, or
    none.
    """
    rows, count, height, width = images.shape[:4]
    font = ImageFont.load_default(14)
    above = [lettered(caption) for caption in captions]
    texts = [_caption(shown.text, shown.font(14), width) for shown in above]
    label_width, gap, header = 132, 4, 4 + 18 * max(map(len, texts))
    sheet = Image.new("RGB", (label_width + count * (width + gap), header + rows * (height + gap)), PAPER)
    pen = ImageDraw.Draw(sheet)
    for column, (shown, lines) in enumerate(zip(above, texts, strict=True)):
        for line, text in enumerate(lines):
            place = (label_width + column * (width + gap), 2 + 18 * line)
            pen.text(place, text, fill=INK, font=shown.font(14))
    for row, label in enumerate(labels):
        top = header + row * (height + gap)
        for line, text in enumerate(label):
            pen.text((6, top + height / 2 - 18 * (1 - line)), text, fill=RULE if row == marked else INK, font=font)
        for column in range(count):
            sheet.paste(Image.fromarray(images[row, column]), (label_width + column * (width + gap), top))
        if row == marked:
            pen.rectangle([1, top - 2, sheet.width - 2, top + height + 1], outline=RULE, width=3)
    return np.array(sheet)


def before_after_sheet(
    title: str, before: np.ndarray, after: np.ndarray, prompts: Sequence[str] | None = None
) -> np.ndarray:
    """Images made with the same prompts and seeds, [N, H, W, 3] uint8 each, one above the other, below the prompt of
    each where `prompts` are given. uint8 [H, W, 3].
    """
    count, height, width = before.shape[:3]
    columns = min(count, SHEET_COLUMNS)
    label_width, gap = 90, 2
    pitch = width + gap
    shown = lettered(title)
    lines = _caption(shown.text, shown.font(18), columns * pitch)
    header = 8 + 22 * len(lines)
    bands = [range(start, min(start + columns, count)) for start in range(0, count, columns)]
    named = [_names(band, prompts, pitch) if prompts else [] for band in bands]
    above = 18 * max((len(text) for names in named for _, _, text in names), default=0)
    band_height = above + 2 * (height + gap) + 4 * gap
    sheet = Image.new("RGB", (label_width + columns * pitch, header + len(bands) * band_height), PAPER)
    pen = ImageDraw.Draw(sheet)
    for line, text in enumerate(lines):
        pen.text((label_width, 4 + 22 * line), text, fill=INK, font=shown.font(18))
    for number, (band, names) in enumerate(zip(bands, named, strict=True)):
        top = header + number * band_height
        for column, font, prompt in names:
            pen.text((label_width + column * pitch, top), "\n".join(prompt), fill=INK, font=font)
        for row, (label, images) in enumerate((("before", before), ("after", after))):
            y = top + above + row * (height + gap)
            pen.text((8, y + height / 2 - 10), label, fill=INK, font=ImageFont.load_default(18))
            for column, place in enumerate(band):
                sheet.paste(Image.fromarray(images[place]), (label_width + column * pitch, y))
    return np.array(sheet)


def _names(band: range, prompts: Sequence[str], pitch: int) -> list[tuple[int, Font, list[str]]]:
    """The prompts of a row of images, each once: the column where it begins, its font, its lines."""
    own = [prompts[place] for place in band]
    begins = [column for column in range(len(own)) if column == 0 or own[column] != own[column - 1]]
    names = []
    for column, end in zip(begins, [*begins[1:], len(own)], strict=True):
        shown = lettered(own[column])
        names.append((column, shown.font(14), _caption(shown.text, shown.font(14), (end - column) * pitch - 6)))
    return names


def entitle(axes: Axes, text: str) -> None:
    """Puts a title above, on as many lines as it needs; a prompt may hold a dollar sign, which begins no formula."""
    shown = lettered(text)
    width = TITLE_SHARE * axes.figure.bbox.width / axes.figure.dpi * POINTS_PER_INCH
    lines = [part for line in shown.text.split("\n") for part in wrapped(line, shown.font(TITLE_POINTS), width)]
    axes.set_title("\n".join(lines).replace("$", r"\$"), fontproperties=shown.properties(TITLE_POINTS))


def drawn(figure: Figure) -> np.ndarray:
    """The figure as uint8 [H, W, 3]."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _caption(text: str, font: Font, width: int) -> list[str]:
    """The text in lines of `width` pixels; what CAPTION_LINES cannot hold is cut."""
    lines = wrapped(text, font, width)
    if len(lines) > CAPTION_LINES:
        lines[CAPTION_LINES - 1 :] = [lines[CAPTION_LINES - 1] + "\u2026"]
    return lines
