"""Prompts of any script in pictures: legible with the fonts that are there, told apart without, and never too wide."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from PIL import ImageFont

from loco_core import lettering
from loco_core.drawing import before_after_sheet, rows_sheet
from loco_core.lettering import Lettering, lettered, wrapped

INK_PAINTING, WATERCOLOUR = "\u6c34\u58a8\u753b", "\u6c34\u5f69\u753b"
FONT = ImageFont.load_default(14)


@pytest.fixture
def fonts(monkeypatch) -> Callable[..., None]:
    """fonts(path, ...) makes these the fonts of the computer, beside that which matplotlib brings."""

    def install(*paths: Path) -> None:
        entries = [SimpleNamespace(fname=str(path), style="normal", weight=400) for path in paths]
        monkeypatch.setattr(lettering, "fontManager", SimpleNamespace(ttflist=entries))
        lettering._best_font.cache_clear()

    yield install
    lettering._best_font.cache_clear()


def font_of(path: Path, characters: str) -> Path:
    """A font of squares for these characters alone."""
    pen = TTGlyphPen(None)
    pen.moveTo((0, 0))
    for corner in ((0, 900), (900, 900), (900, 0)):
        pen.lineTo(corner)
    pen.closePath()
    square = pen.glyph()
    names = [".notdef", *(f"uni{ord(character):04X}" for character in characters)]
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder(names)
    builder.setupCharacterMap({ord(character): f"uni{ord(character):04X}" for character in characters})
    builder.setupGlyf(dict.fromkeys(names, square))
    builder.setupHorizontalMetrics(dict.fromkeys(names, (1000, 0)))
    builder.setupHorizontalHeader(ascent=900, descent=-100)
    builder.setupNameTable({"familyName": path.stem, "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    builder.save(path)
    return path


def test_western_european_text_is_drawn_as_before(fonts):
    fonts()
    assert lettered("a caf\u00e9 for $5") == Lettering("a caf\u00e9 for $5", None)


@pytest.mark.parametrize("text", ["\u043a\u043e\u0442 in oil", "\u03b3\u03ac\u03c4\u03b1", "a star \u2192 a fish"])
def test_scripts_that_the_font_of_matplotlib_has_are_drawn_in_it(fonts, text):
    fonts()
    shown = lettered(text)
    assert shown.text == text
    assert Path(shown.path).name == "DejaVuSans.ttf"


def test_characters_that_no_font_has_are_told_by_their_code_points(fonts):
    fonts()
    assert lettered(f"a fish, {WATERCOLOUR}").text == "a fish, <6C34><5F69><753B>"


def test_a_font_of_the_computer_that_has_all_characters_is_taken(fonts, tmp_path):
    part, damaged = font_of(tmp_path / "a.ttf", "\u6c34"), tmp_path / "b.ttf"
    damaged.write_bytes(b"no font")
    own = font_of(tmp_path / "c.ttf", INK_PAINTING)
    fonts(part, damaged, own, tmp_path / "gone.ttf")
    assert lettered(INK_PAINTING) == Lettering(INK_PAINTING, str(own))
    assert lettered(WATERCOLOUR) == Lettering("\u6c34<5F69>\u753b", str(own))  # what it lacks is told


def test_a_font_of_the_computer_that_lacks_the_texts_other_letters_is_passed_over(fonts, tmp_path):
    narrow, whole = (
        font_of(tmp_path / "narrow.ttf", INK_PAINTING),
        font_of(tmp_path / "whole.ttf", f"astr{INK_PAINTING}"),
    )
    fonts(narrow, whole)
    assert lettered(f"a star {INK_PAINTING}") == Lettering(f"a star {INK_PAINTING}", str(whole))


def test_two_prompts_that_no_font_can_draw_have_different_captions(fonts):
    fonts()
    images = np.zeros((1, 2, 128, 128, 3), np.uint8)
    sheet = rows_sheet(images, [INK_PAINTING, WATERCOLOUR], [("unmodified", "")], None)
    captions = sheet[:-132, 132:].reshape(len(sheet) - 132, 2, 132, 3)
    assert not np.array_equal(captions[:, 0], captions[:, 1])
    titled = [before_after_sheet(title, *images, *images)[:30] for title in (INK_PAINTING, WATERCOLOUR)]
    assert not np.array_equal(*titled)


@pytest.mark.parametrize(
    "text",
    [
        "\u4e00" * 60,  # a script without spaces
        f"a fish {chr(0x3042) * 30} and a star",
        "lora_trigger_word_of_one_hundred_letters_" * 3,
        "a painting of a house in the style of Van Gogh",
    ],
)
def test_no_line_is_wider_than_its_image(text):
    lines = wrapped(text, FONT, 128)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")
    assert max(map(FONT.getlength, lines)) <= 128


def test_words_stay_whole_where_they_fit():
    assert wrapped("a painting of a house", FONT, 100) == ["a painting of a", "house"]


def test_images_before_and_after_stand_below_their_prompts():
    images = np.zeros((3, 64, 64, 3), np.uint8)
    plain = before_after_sheet("gone", images, images)
    named = before_after_sheet("gone", images, images, ["a cat", "a cat", "a dog"])
    line = named[30 : 30 + len(named) - len(plain)]
    assert len(line) > 0
    drawn = [bool((line[:, start : start + 60] < 128).any()) for start in (90, 156, 222)]
    assert drawn == [True, False, True]  # a prompt is said once, above the first of its images
