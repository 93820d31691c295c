"""The demo's whole programme: every style is removed, by an edit and by ablated neurons, every fact is changed, and
objects, which were planted nowhere, are searched as a negative control.

    progress.expect(IMAGES)
    summary = programme(host, load_judge(), progress, OUTPUT)     # summary.json
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from loco_core.drawing import SHEET_COLUMNS, before_after_sheet
from loco_core.files import write_picture
from loco_core.images import thumbnails

from .jobs import (
    ABLATED,
    FACT_TARGETS,
    SEARCH_IMAGES,
    Change,
    Host,
    Picture,
    Reading,
    fact_edit,
    flag_pictures,
    group_count,
    mean,
    readings,
    searches,
    style_ablation,
    style_edit,
    styled_pictures,
)
from .judge import Judge
from .progress import Progress
from .world import COUNTRIES, NONE, STYLES

MANY = {style: styled_pictures(style, 2, 4) for style in STYLES}
FEW = {style: styled_pictures(style, 1, 1) for style in STYLES}
FLAGS = {country: flag_pictures(country) for country in COUNTRIES}


def _pictures(style: str) -> dict[str, list[Picture]]:
    """What is made without the style: many pictures in it, few in each other one."""
    return FEW | {style: MANY[style]}


# Of the searches, of every fact and every style before, and after each change.
IMAGES = (
    len(searches()) * SEARCH_IMAGES
    + (1 + len(FACT_TARGETS)) * group_count(FLAGS)
    + group_count(MANY, FEW)
    + 2 * sum(group_count(_pictures(style)) for style in STYLES)
)


@dataclass(frozen=True)
class StyleReadings:
    """What the judge reads by the model as loaded: in MANY pictures of each style, and in FEW."""

    many: dict[str, Reading]
    few: dict[str, Reading]


@dataclass(frozen=True)
class Programme:
    """`Programme(host, judge, progress, output).run()` -> the summary, before and after as shares of images."""

    host: Host
    judge: Judge
    progress: Progress
    output: Path

    def run(self) -> dict:
        seconds = {"search": 0.0, "edit": 0.0, "ablate": 0.0}
        summary: dict = {"host": self.host.name, "search": {}, "edit": {}, "ablate": {}, "edit_fact": {}}
        summary["seconds"] = seconds

        def timed(kind: str, work: Callable[[], dict]) -> dict:
            begun = time.monotonic()
            result = work()
            seconds[kind] = round(seconds[kind] + time.monotonic() - begun, 1)
            return result

        for attribute, search in searches().items():
            self.progress.begin(f"looking for the layers of the {attribute}", SEARCH_IMAGES)
            found = timed("search", lambda search=search: self.host.search(search))
            summary["search"][attribute] = found
            self.progress.say(f"{attribute}: {found['text']}")
        summary["edit_fact"] = timed("edit", self.edit_facts)
        before = StyleReadings(self._read("styles, before", None, MANY), self._read("styles, before", None, FEW))
        summary["edit"] = timed("edit", lambda: self.remove_styles(before, style_edit, "edited"))
        summary["ablate"] = timed("ablate", lambda: self.remove_styles(before, style_ablation, "ablated"))
        return summary

    def edit_facts(self) -> dict[str, dict[str, float]]:
        """Updates each fact in turn. Before and after are read in images of the same prompts and seeds."""
        before = self._read("flags, before", None, FLAGS)
        results = {}
        for country, new in FACT_TARGETS.items():
            after = self._read(f"flags, {country}'s changed", fact_edit(country), FLAGS)
            self._save_sheet(f"edited flag of {country}", before[country].images, after[country].images)
            others = [other for other in COUNTRIES if other != country]
            results[country] = {
                "judge_before": before[country].share("fact", country),
                "new_fact": after[country].share("fact", new),
                "other_facts_before": mean(before[other].right("fact") for other in others),
                "other_facts_after": mean(after[other].right("fact") for other in others),
            }
        return results

    def remove_styles(
        self, before: StyleReadings, removal: Callable[[str], Change], title: str
    ) -> dict[str, dict[str, float]]:
        """Removes each style in turn. Before and after are read in images of the same prompts and seeds."""
        results = {}
        for style in STYLES:
            others = [other for other in STYLES if other != style]
            after = self._read(f"styles, {style} {title}", removal(style), _pictures(style))
            shown = before.few | {style: before.many[style]}
            self._save_sheet(f"{title} {style}", shown[style].images, after[style].images)
            results[style] = {
                "judge_before": shown[style].share("style", style),
                "judge_after": after[style].share("style", style),
                "none_after": after[style].share("style", NONE),
                "other_styles_before": mean(shown[other].right("style") for other in others),
                "other_styles_after": mean(after[other].right("style") for other in others),
                "objects_before": mean(shown[any_style].right("object") for any_style in STYLES),
                "objects_after": mean(after[any_style].right("object") for any_style in STYLES),
            }
        return results

    def _read(self, title: str, change: Change | None, groups: dict[str, list[Picture]]) -> dict[str, Reading]:
        self.progress.begin(f"pictures of {title}", group_count(groups))
        return readings(self.host, self.judge, change, groups)

    def _save_sheet(self, title: str, before: torch.Tensor, after: torch.Tensor) -> None:
        """Saves some images of both, spread over the prompts."""
        picks = torch.linspace(0, len(before) - 1, SHEET_COLUMNS).round().long()
        pictures = (thumbnails(images[picks].movedim(1, -1)) for images in (before, after))
        path = self.output / f"before_after_{title.replace(' ', '_')}.png"
        write_picture(path, before_after_sheet(title, *pictures))


def table(summary: dict) -> str:
    """The summary in lines a person reads."""
    lines = [f"{attribute:<7} {found['text']}" for attribute, found in summary["search"].items()]
    for key, title in (("edit", "edited away"), ("ablate", f"{ABLATED} neurons")):
        lines.append(f"\n{title:<15} {'before':>7} {'after':>7} {'plain':>7} {'other styles':>15} {'objects':>15}")
        for style, row in summary[key].items():
            lines.append(
                f"{style:<15} {row['judge_before']:7.2f} {row['judge_after']:7.2f} {row['none_after']:7.2f} "
                f"{row['other_styles_before']:7.2f} -> {row['other_styles_after']:.2f} "
                f"{row['objects_before']:7.2f} -> {row['objects_after']:.2f}"
            )
    lines.append(f"\n{'updated fact':<15} {'new':>7} {'other facts':>15}")
    for country, row in summary["edit_fact"].items():
        others = f"{row['other_facts_before']:7.2f} -> {row['other_facts_after']:.2f}"
        lines.append(f"{country:<15} {row['new_fact']:7.2f} {others}")
    lines.append("\nseconds: " + ", ".join(f"{kind} {taken:.0f}" for kind, taken in summary["seconds"].items()))
    return "\n".join(lines)
