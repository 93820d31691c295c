"""Sheets of labelled images, and what all plots have in common."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont

# Colours of plots: what is best, all others, and what they are compared with.
BEST, OTHER, BASELINE = "#d1495b", "#8d99ae", "#2b2d42"
# Colours of sheets: text, background, and the frame of a marked row.
INK, PAPER, RULE = (28, 28, 32), (255, 255, 255), (209, 73, 91)
# Images side by side on a before/after sheet.
SHEET_COLUMNS = 12
# Lines of the text above images.
CAPTION_LINES = 5


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


def entitle(axes: Axes, text: str) -> None:
    """Puts a title above, on as many lines as it needs; a prompt may hold a dollar sign, which begins no formula."""
    axes.set_title(text.replace("$", r"\$"), fontsize=10, wrap=True)


def drawn(figure: Figure) -> np.ndarray:
    """The figure as uint8 [H, W, 3]."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _wrapped(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> list[str]:
    """The text in lines of `width` pixels, unless a word is longer; what CAPTION_LINES cannot hold is cut."""
    lines = [""]
    for word in text.split():
        if lines[-1] and font.getlength(f"{lines[-1]} {word}") > width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    if len(lines) > CAPTION_LINES:
        lines[CAPTION_LINES - 1 :] = [lines[CAPTION_LINES - 1] + "\u2026"]
    return lines
