"""The demo: the model's knowledge is found and removed, and an independent judge reads the pictures before and after.

Called by `python dev.py demo`; runs in a real ComfyUI server where COMFYUI_PATH names one, else on diffusers. Writes
demo/output/ anew.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT))

import torch  # noqa: E402 - the path comes first

from demo.jobs import (  # noqa: E402
    ABLATED,
    FACT_TARGETS,
    Change,
    Host,
    Reading,
    fact_edit,
    flag_pictures,
    mean,
    readings,
    searches,
    style_ablation,
    style_edit,
    styled_pictures,
)
from demo.judge import Judge, load_judge  # noqa: E402
from demo.world import COUNTRIES, NONE, STYLES  # noqa: E402
from loco_core.drawing import SHEET_COLUMNS, before_after_sheet  # noqa: E402
from loco_core.files import write_picture  # noqa: E402
from loco_core.localization.evaluation import thumbnails  # noqa: E402

OUTPUT = ROOT / "demo" / "output"
MANY = {style: styled_pictures(style, 2, 4) for style in STYLES}
FEW = {style: styled_pictures(style, 1, 1) for style in STYLES}


@dataclass(frozen=True)
class StyleReadings:
    """What the judge reads by the model as loaded: in MANY pictures of each style, and in FEW."""

    many: dict[str, Reading]
    few: dict[str, Reading]


@contextmanager
def host() -> Iterator[Host]:
    """ComfyUI where COMFYUI_PATH names one, else diffusers."""
    comfyui = os.environ.get("COMFYUI_PATH")
    if not comfyui:
        from demo.diffusers_host import DiffusersHost

        yield DiffusersHost(OUTPUT)
        return
    from demo.comfy_host import ComfyHost
    from demo.server import Server

    with tempfile.TemporaryDirectory() as folder, Server(Path(comfyui), Path(folder)) as server:
        yield ComfyHost(server, OUTPUT)


def remove_styles(
    host: Host, judge: Judge, before: StyleReadings, removal: Callable[[str], Change], title: str
) -> dict[str, dict[str, float]]:
    """Removes each style in turn. Before and after are read in images of the same prompts and seeds."""
    results = {}
    for style in STYLES:
        others = [other for other in STYLES if other != style]
        pictures = {other: FEW[other] for other in others} | {style: MANY[style]}
        after = readings(host, judge, removal(style), pictures)
        shown = before.few | {style: before.many[style]}
        save_sheet(f"{title} {style}", shown[style].images, after[style].images)
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


def edit_facts(host: Host, judge: Judge) -> dict[str, dict[str, float]]:
    """Updates each fact in turn. Before and after are read in images of the same prompts and seeds."""
    pictures = {country: flag_pictures(country) for country in COUNTRIES}
    before = readings(host, judge, None, pictures)
    results = {}
    for country, new in FACT_TARGETS.items():
        after = readings(host, judge, fact_edit(country), pictures)
        save_sheet(f"edited flag of {country}", before[country].images, after[country].images)
        others = [other for other in COUNTRIES if other != country]
        results[country] = {
            "judge_before": before[country].share("fact", country),
            "new_fact": after[country].share("fact", new),
            "other_facts_before": mean(before[other].right("fact") for other in others),
            "other_facts_after": mean(after[other].right("fact") for other in others),
        }
    return results


def save_sheet(title: str, before: torch.Tensor, after: torch.Tensor) -> None:
    """Saves some images of both, spread over the prompts."""
    picks = torch.linspace(0, len(before) - 1, SHEET_COLUMNS).round().long()
    pictures = (thumbnails(images[picks].movedim(1, -1)) for images in (before, after))
    write_picture(OUTPUT / f"before_after_{title.replace(' ', '_')}.png", before_after_sheet(title, *pictures))


def print_table(summary: dict) -> None:
    for attribute, found in summary["search"].items():
        print(f"{attribute:<7} {found['text']}")
    for key, title in (("edit", "edited away"), ("ablate", f"{ABLATED} neurons")):
        print(f"\n{title:<15} {'before':>7} {'after':>7} {'plain':>7} {'other styles':>15} {'objects':>15}")
        for style, row in summary[key].items():
            print(
                f"{style:<15} {row['judge_before']:7.2f} {row['judge_after']:7.2f} {row['none_after']:7.2f} "
                f"{row['other_styles_before']:7.2f} -> {row['other_styles_after']:.2f} "
                f"{row['objects_before']:7.2f} -> {row['objects_after']:.2f}"
            )
    print(f"\n{'updated fact':<15} {'new':>7} {'other facts':>15}")
    for country, row in summary["edit_fact"].items():
        print(
            f"{country:<15} {row['new_fact']:7.2f} {row['other_facts_before']:7.2f} -> {row['other_facts_after']:.2f}"
        )
    print("\nseconds: " + ", ".join(f"{kind} {taken:.0f}" for kind, taken in summary["seconds"].items()))


def main() -> None:
    shutil.rmtree(OUTPUT, ignore_errors=True)
    OUTPUT.mkdir(parents=True)
    judge = load_judge()
    seconds = {"search": 0.0, "edit": 0.0, "ablate": 0.0}

    def timed(kind: str, work: Callable[[], dict]) -> dict:
        begun = time.monotonic()
        result = work()
        seconds[kind] = round(seconds[kind] + time.monotonic() - begun, 1)
        return result

    with host() as running:
        summary: dict = {"host": running.name, "search": {}, "edit": {}, "ablate": {}, "edit_fact": {}}
        summary["seconds"] = seconds
        for attribute, search in searches().items():
            print(f"{running.name}: searching, {attribute}", flush=True)
            summary["search"][attribute] = timed("search", lambda search=search: running.search(search))
        print("updating facts", flush=True)
        summary["edit_fact"] = timed("edit", lambda: edit_facts(running, judge))
        print("removing styles, by edits and by ablated neurons", flush=True)
        before = StyleReadings(*(readings(running, judge, None, group) for group in (MANY, FEW)))
        summary["edit"] = timed("edit", lambda: remove_styles(running, judge, before, style_edit, "edited"))
        summary["ablate"] = timed("ablate", lambda: remove_styles(running, judge, before, style_ablation, "ablated"))
    (OUTPUT / "summary.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    print_table(summary)
    print(f"Look at the pictures in {OUTPUT}")


if __name__ == "__main__":
    main()
