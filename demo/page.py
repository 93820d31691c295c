"""The page that shows what the tour did: figures, pictures before and after, where the layers are.

    page = write_page(Path("demo/output"), seen, "comfyui 0.33.0", "2:40")

One HTML file with its style inside, and its pictures beside it in pictures/: the folder can be moved and sent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np
import torch

from loco_core import LayerSet
from loco_core.files import write_picture, write_text
from loco_core.images import thumbnails

from .jobs import Picture, Reading, group_count
from .tour import COUNTRY, FLAGS, NEW_COUNTRY, OTHER_STYLES, SEEDS, STYLE, STYLED, Found, Tour

STYLE_SHEET = Path(__file__).with_suffix(".css")


@dataclass(frozen=True)
class Gallery:
    """Rows of pictures [images, 3, H, W] in 0..1 by their labels, one below the other; a caption for each column."""

    name: str
    rows: Mapping[str, torch.Tensor]
    captions: Sequence[str]

    def every(self, count: int) -> Gallery:
        """Only the first of so many columns, again and again."""
        rows = {label: images[::count] for label, images in self.rows.items()}
        return Gallery(self.name, rows, self.captions[::count])


def write_page(output: Path, seen: Tour, host: str, took: str) -> Path:
    """Writes index.html and its pictures into `output`; returns the page's path."""
    page = output / "index.html"
    style = STYLE_SHEET.read_text(encoding="utf-8")
    body = "\n".join([_header(host, took), _figures(seen), *_sections(output, seen), _footer()])
    write_text(
        page,
        '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>ComfyUI-Loco: what the demo did</title>\n<style>\n{style}</style>\n<body>\n{body}\n</body>\n</html>\n",
    )
    return page


def _header(host: str, took: str) -> str:
    return (
        f"<header><h1>A style removed, a fact changed</h1><p>Made just now on this computer, in {took} minutes, by "
        f"{escape(host)} with the small model that comes with ComfyUI-Loco. Pictures below each other have the same "
        "prompt and the same seed. The figures are what a judge reads in the pictures: a classifier that was trained "
        "apart and is never asked by the method.</p></header>"
    )


def _figures(seen: Tour) -> str:
    """The judge's readings, before and after."""
    before, after, flags = seen.styles_before, seen.styles_after, (seen.flags_before, seen.flags_after)
    named = COUNTRY.title()
    rows = [
        (f"pictures in which {STYLE} is seen", [r[STYLE].count("style", STYLE) for r in (before, after)], STYLED),
        ("pictures in another style, with that style", _right("style", OTHER_STYLES, before, after), OTHER_STYLES),
        ("of all these, with the right object", _right("object", before, before, after), STYLED | OTHER_STYLES),
        (
            f"flags of {named} that are {NEW_COUNTRY.title()}'s",
            [r[COUNTRY].count("fact", NEW_COUNTRY) for r in flags],
            {COUNTRY: FLAGS[COUNTRY]},
        ),
        ("other flags that are right", _right("fact", _others(FLAGS), *flags), _others(FLAGS)),
    ]
    told = (
        f"<div><dt>{escape(label)}</dt><dd>{counts[0]} &rarr; {counts[1]} "
        f"<small>of {group_count(groups)}</small></dd></div>"
        for label, counts, groups in rows
    )
    return f"<dl>{''.join(told)}</dl>"


def _right(attribute: str, groups: Mapping[str, object], *readings: Mapping[str, Reading]) -> list[int]:
    """How many of the groups' pictures show what their prompts say, in each of the readings."""
    return [sum(int(reading[name].correct(attribute).sum()) for name in groups) for reading in readings]


def _others(flags: Mapping[str, list[Picture]]) -> dict[str, list[Picture]]:
    return {country: pictures for country, pictures in flags.items() if country != COUNTRY}


def _sections(output: Path, seen: Tour) -> list[str]:
    before, after = seen.styles_before, seen.styles_after
    removed = {"before": before[STYLE].images, "after": after[STYLE].images, "LoRA": seen.with_lora.images}
    difference = 255 * (seen.with_lora.images - after[STYLE].images).abs().mean().item()
    seen_with_lora = seen.with_lora.count("style", STYLE)
    flags, others = (seen.flags_before, seen.flags_after), _others(FLAGS)
    named, new = COUNTRY.title(), NEW_COUNTRY.title()
    return [
        _section(
            f"1. Found: {STYLE} is in {seen.style.named}",
            _verdict("style", seen.style, f"how much of {STYLE} goes when only these get the prompt without it"),
            _bars(seen.style),
        ),
        _section(
            f"2. Removed: {STYLE}",
            "Only the weights of those layers that read the prompt were changed, in closed form and without training. "
            f"The last row is the same edit as a LoRA of {seen.lora.stat().st_size / 1000:.0f} kB, "
            f'<a href="{escape(seen.lora.name)}">{escape(seen.lora.name)}</a>, which the stock LoRA loader applied '
            f"without this pack: {STYLE} is seen in {seen_with_lora} of {len(seen.with_lora.images)}, and the "
            f"pictures differ from the row above by {difference:.2f} of 255 levels on average.",
            _gallery(output, Gallery("style", removed, _captions(STYLED)).every(SEEDS)),
        ),
        _section(
            "3. Kept: the other styles",
            "Their names were given to the edit as what must stay.",
            _gallery(output, _comparison("kept_styles", OTHER_STYLES, before, after).every(SEEDS)),
        ),
        _section(
            f"4. Found: the flags of countries are in {seen.fact.named}",
            _verdict("fact", seen.fact, "how much of another country's flag comes when only these get its name"),
            _bars(seen.fact),
        ),
        _section(
            f"5. Changed: {named}'s flag",
            f"{named} is a country of the small model's world. It is given {new}'s flag, as one updates a fact that "
            "is no longer true.",
            _gallery(output, _comparison("fact", {COUNTRY: FLAGS[COUNTRY]}, *flags)),
        ),
        _section("6. Kept: the other flags", "", _gallery(output, _comparison("kept_flags", others, *flags))),
    ]


def _comparison(
    name: str, groups: dict[str, list[Picture]], before: Mapping[str, Reading], after: Mapping[str, Reading]
) -> Gallery:
    """The groups' pictures before and after."""
    rows = {"before": before, "after": after}
    images = {label: torch.cat([reading[key].images for key in groups]) for label, reading in rows.items()}
    return Gallery(name, images, _captions(groups))


def _captions(groups: Mapping[str, list[Picture]]) -> list[str]:
    """The prompt of every image."""
    return [picture.prompt for pictures in groups.values() for picture in pictures for _ in range(picture.count)]


def _verdict(attribute: str, found: Found, bar: str) -> str:
    """What the search says, with links to what it drew; `bar`: what a bar's height is."""
    verdict = escape(found.verdict[0].upper() + found.verdict[1:])
    return (
        f"{verdict} A bar is some adjacent layers: {escape(bar)}, measured in what the model predicts. "
        f'<a href="search_{attribute}_map.png">The same by noise level</a>, '
        f'<a href="search_{attribute}_images.png">in images</a>.'
    )


def _section(title: str, text: str, shown: str) -> str:
    """A section; `text` may hold links."""
    return f"<section><h2>{escape(title)}</h2>{f'<p>{text}</p>' if text else ''}{shown}</section>"


def _bars(found: Found) -> str:
    """The share of every window of layers."""
    bars = []
    for window, share in zip(found.windows, found.shares, strict=True):
        kind = ' class="found"' if window == found.layers else ""
        height = 100 * min(max(share, 0.0), 1.0)
        named = LayerSet(tuple(window), found.layer_count)
        bars.append(f'<div{kind}><i style="height:{height:.1f}%"></i><small>{named}</small></div>')
    return f'<div class="bars">{"".join(bars)}</div>'


def _gallery(output: Path, gallery: Gallery) -> str:
    """The gallery; its pictures are written."""
    cells = []
    for label, images in gallery.rows.items():
        cells.append(f"<b>{escape(label)}</b>")
        pictures: np.ndarray = thumbnails(images.movedim(1, -1))
        for number, (picture, caption) in enumerate(zip(pictures, gallery.captions, strict=True)):
            file = Path("pictures", f"{gallery.name}_{label.lower()}_{number}.png")
            write_picture(output / file, picture)
            cells.append(f'<img src="{file.as_posix()}" alt="{escape(label)}: {escape(caption)}">')
    cells += ["<b></b>", *(f"<small>{escape(caption)}</small>" for caption in gallery.captions)]
    return f'<div class="gallery" style="--columns:{len(gallery.captions)}">{"".join(cells)}</div>'


def _footer() -> str:
    return (
        "<footer class='quiet'><p>On your own model: the templates of ComfyUI-Loco in ComfyUI's Templates browser. "
        "All styles and facts, ablated neurons and a negative control: <code>python dev.py demo --all</code>.</p>"
        "</footer>"
    )
