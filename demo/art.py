"""The pack's icon and banner in the registry: python demo/art.py writes web/icon.png and web/banner.png.

A model as a column of layers, from the prompt's first to its last; the two that hold a style stand out.
"""

from __future__ import annotations

import sys
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT))

from loco_core.drawing import BEST, OTHER  # noqa: E402 - the path comes first

PAPER, INK = "#20222a", "#ffffff"
LAYERS, HOLDING = 10, (5, 6)
# Pixels. The registry shows icons of up to 400 x 400, and banners of 21 : 9.
ICON, BANNER = (400, 400), (1260, 540)


def draw_layers(pen: ImageDraw.ImageDraw, left: float, top: float, width: float, height: float) -> None:
    """Layers one below the other, those that hold the style wider and coloured."""
    pitch = height / LAYERS
    for layer in range(LAYERS):
        holds = layer in HOLDING
        inset = 0 if holds else 0.14 * width
        y = top + layer * pitch
        box = (left + inset, y + 0.15 * pitch, left + width - inset, y + 0.85 * pitch)
        pen.rounded_rectangle(box, radius=0.3 * pitch, fill=BEST if holds else OTHER)


def icon() -> Image.Image:
    picture = Image.new("RGB", ICON, PAPER)
    draw_layers(ImageDraw.Draw(picture), 60, 30, 280, 340)
    return picture


def banner() -> Image.Image:
    picture = Image.new("RGB", BANNER, PAPER)
    pen = ImageDraw.Draw(picture)
    draw_layers(pen, 70, 70, 320, 400)
    lines = ("Find the layers", "that hold a style.", "Edit only those.")
    for number, line in enumerate(lines):
        pen.text((470, 110 + 92 * number), line, fill=INK, font=ImageFont.load_default(72))
    pen.text((474, 420), "ComfyUI-Loco", fill=OTHER, font=ImageFont.load_default(40))
    return picture


if __name__ == "__main__":
    icon().save(ROOT / "web" / "icon.png", optimize=True)
    banner().save(ROOT / "web" / "banner.png", optimize=True)
