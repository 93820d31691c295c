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


def before_after_sheet(title: str, before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Images made with the same prompts and seeds, [N, H, W, 3] uint8 each, one above the other. uint8 [H, W, 3]."""
    count, height, width = before.shape[:3]
    columns = min(count, SHEET_COLUMNS)
    font = ImageFont.load_default(18)
    label_width, gap = 90, 2
    shown = lettered(title)
    lines = _caption(shown.text, shown.font(18), columns * (width + gap))
    header = 8 + 22 * len(lines)
    band = 2 * (height + gap) + 4 * gap
    size = (label_width + columns * (width + gap), header + -(-count // columns) * band)
    sheet = Image.new("RGB", size, PAPER)
    pen = ImageDraw.Draw(sheet)
    for line, text in enumerate(lines):
        pen.text((label_width, 4 + 22 * line), text, fill=INK, font=shown.font(18))
    for start in range(0, count, columns):
        for row, (label, images) in enumerate((("before", before), ("after", after))):
            top = header + start // columns * band + row * (height + gap)
            pen.text((8, top + height / 2 - 10), label, fill=INK, font=font)
            for column, image in enumerate(images[start : start + columns]):
                sheet.paste(Image.fromarray(image), (label_width + column * (width + gap), top))
    return np.array(sheet)


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
