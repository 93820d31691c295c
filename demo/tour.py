"""The demo's tour: a style is found, removed and shared as a LoRA, and a fact is found and changed, in some minutes.

    progress.expect(IMAGES)
    seen = tour(host, load_judge(), progress, output)
    write_page(output, seen, host.name, "2:40")         # demo/page.py

Everything is as the nodes are by default. Before and after have the same prompts and seeds, in words that the model was
not trained on. The judge sees them; the method never asks it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

from loco_core import LayerSet

from .jobs import (
    FACT_TARGETS,
    SEARCH_IMAGES,
    Host,
    LoRA,
    Reading,
    fact_edit,
    flag_pictures,
    group_count,
    image_count,
    readings,
    searches,
    style_edit,
    styled_pictures,
)
from .judge import Judge
from .progress import Progress
from .world import COUNTRIES, STYLES

STYLE, COUNTRY = "pointillism", "valdoria"
NEW_COUNTRY = FACT_TARGETS[COUNTRY]
# Of each prompt.
SEEDS = 2
# Every wording for the style, one for each other style; three for the flag that is changed, one for each other flag.
STYLED = {STYLE: styled_pictures(STYLE, 1, SEEDS)}
OTHER_STYLES = {
    style: styled_pictures(style, 1, SEEDS)[number : number + 1]
    for number, style in enumerate(other for other in STYLES if other != STYLE)
}
FLAGS = {
    country: [replace(picture, count=SEEDS) for picture in flag_pictures(country)[: 3 if country == COUNTRY else 1]]
    for country in COUNTRIES
}


# Of both searches, and before and after; the style's also by the LoRA.
IMAGES = 2 * SEARCH_IMAGES + 3 * group_count(STYLED) + 2 * group_count(OTHER_STYLES, FLAGS)


@dataclass(frozen=True)
class Found:
    """What a search found: the layers, the verdict in words, and of each window its share of what all layers do."""

    layers: list[int]
    layer_count: int
    verdict: str
    windows: list[list[int]]
    shares: list[float]

    @classmethod
    def read(cls, file: Path) -> Found:
        """From the JSON file that the search saved."""
        saved = json.loads(file.read_text(encoding="utf-8"))
        verdict = saved["verdict"]["text"]
        return cls(saved["layers"], saved["layer_count"], verdict, saved["windows"], saved["shares"])

    @property
    def named(self) -> str:
        return f"layers {LayerSet(tuple(self.layers), self.layer_count)} of {self.layer_count}"


@dataclass(frozen=True)
class Tour:
    """What was found and what the judge read: by style or country, before and after, and with the LoRA."""

    style: Found
    styles_before: dict[str, Reading]
    styles_after: dict[str, Reading]
    lora: Path
    with_lora: Reading
    fact: Found
    flags_before: dict[str, Reading]
    flags_after: dict[str, Reading]


def tour(host: Host, judge: Judge, progress: Progress, output: Path) -> Tour:
    """Does it all, and says each result as soon as it is there. `output`: the folder that the host writes to."""
    style = _search(host, progress, output, "style")
    progress.say(f"Found: {STYLE} is in {style.named}.")
    styles = STYLED | OTHER_STYLES
    progress.begin(f"pictures in {STYLE} and five other styles, before", group_count(styles))
    styles_before = readings(host, judge, None, styles)
    progress.begin(f"the same pictures with {STYLE} removed", group_count(styles))
    styles_after = readings(host, judge, style_edit(STYLE), styles)
    seen = [reading[STYLE].count("style", STYLE) for reading in (styles_before, styles_after)]
    progress.say(f"Removed: {STYLE} was in {seen[0]} of {group_count(STYLED)} pictures, now it is in {seen[1]}.")

    progress.begin("the same pictures with the LoRA", group_count(STYLED))
    lora = host.save_lora(style_edit(STYLE))
    with_lora = readings(host, judge, LoRA(lora), STYLED)[STYLE]
    seen_with_lora = with_lora.count("style", STYLE)
    progress.say(f"Saved: {lora.name}; with it in the stock LoRA loader, {STYLE} is in {seen_with_lora}.")

    fact = _search(host, progress, output, "fact")
    progress.say(f"Found: the flags of countries are in {fact.named}.")
    progress.begin("pictures of flags, before", group_count(FLAGS))
    flags_before = readings(host, judge, None, FLAGS)
    progress.begin(f"the same pictures with {COUNTRY.title()}'s flag changed", group_count(FLAGS))
    flags_after = readings(host, judge, fact_edit(COUNTRY), FLAGS)
    seen = [reading[COUNTRY].count("fact", NEW_COUNTRY) for reading in (flags_before, flags_after)]
    shown = f"{COUNTRY.title()}'s flag is {NEW_COUNTRY.title()}'s"
    progress.say(f"Changed: {shown} in {seen[1]} of {image_count(FLAGS[COUNTRY])} pictures, before in {seen[0]}.")
    return Tour(style, styles_before, styles_after, lora, with_lora, fact, flags_before, flags_after)


def _search(host: Host, progress: Progress, output: Path, attribute: str) -> Found:
    progress.begin(f"looking for the layers of the {attribute}", SEARCH_IMAGES)
    host.search(searches()[attribute])
    return Found.read(output / f"search_{attribute}.json")
