"""What people write, as it can be drawn: prompts of any script, in the fonts of this computer.

shown = lettered("a fish in the style of \u6c34\u58a8\u753b")
pen.text(place, shown.text, font=shown.font(14))
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

from matplotlib.font_manager import FontProperties, findfont, fontManager
from matplotlib.ft2font import FT2Font
from PIL import ImageFont

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

# So begin the files of fonts that have a box for every character, and of fonts of symbols with places of their own.
BOXES = ("LastResort", "STIX", "cm")
# Weights of fonts that are neither thin nor bold.
REGULAR = (400, "normal", "regular")


@dataclass(frozen=True)
class Lettering:
    """A text and the file of a font that has all of its characters; None is Pillow's own, for Western Europe.

    A character that no font has stands in the text as its code point, "<6C34>": boxes would all look the same.
    """

    text: str
    path: str | None

    def font(self, pixels: float) -> Font:
        return ImageFont.load_default(pixels) if self.path is None else ImageFont.truetype(self.path, pixels)

    def properties(self, points: float) -> FontProperties:
        """The same font for a plot."""
        return FontProperties(fname=self.path, size=points)


def lettered(text: str) -> Lettering:
    """The text as it can be drawn here."""
    if all(ord(character) <= 0xFF for character in text):
        return Lettering(text, None)
    wanted = frozenset(character for character in text if character.isprintable() and not character.isspace())
    path, missing = _best_font(wanted)
    return Lettering("".join(f"<{ord(letter):04X}>" if letter in missing else letter for letter in text), path)


@functools.lru_cache(maxsize=64)
def _best_font(wanted: frozenset[str]) -> tuple[str, frozenset[str]]:
    """The first font that has these characters, or else the most of them, and those that it lacks."""
    best = str(findfont("DejaVu Sans"))
    missing = _missing(best, wanted)
    upright = [entry for entry in fontManager.ttflist if entry.style == "normal" and entry.weight in REGULAR]
    for path in sorted({str(entry.fname) for entry in upright if not Path(entry.fname).name.startswith(BOXES)}):
        if not missing:
            break
        other = _missing(path, wanted)
        if len(other) < len(missing):
            best, missing = path, other
    return best, missing


def _missing(path: str, wanted: frozenset[str]) -> frozenset[str]:
    try:
        font = FT2Font(path)
    except (OSError, RuntimeError):  # a font that was taken away, or is damaged
        return wanted
    return frozenset(character for character in wanted if not font.get_char_index(ord(character)))


def wrapped(text: str, font: Font, width: float) -> list[str]:
    """The text in lines of `width` pixels: broken between words, and inside of what no line can hold, as scripts
    without spaces are.
    """
    lines = [""]
    for word in text.split():
        joined = f"{lines[-1]} {word}".strip()
        if font.getlength(joined) <= width:
            lines[-1] = joined
        elif font.getlength(word) <= width:
            lines.append(word)
        else:
            lines[-1] = f"{lines[-1]} ".lstrip()
            for character in word:
                if lines[-1] and font.getlength(lines[-1] + character) > width:
                    lines.append("")
                lines[-1] += character
    return lines
