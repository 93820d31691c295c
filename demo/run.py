"""The demo: a real ComfyUI server finds a style, a fact and an object in the demo model, removes what it found, and an
independent judge reads the pictures before and after. Called by `python dev.py demo`; writes demo/output/ anew.
"""

from __future__ import annotations

import copy
import json
import os
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT))

import numpy as np  # noqa: E402 - the path comes first
import torch  # noqa: E402
from PIL import Image, ImageDraw, ImageFont  # noqa: E402

from demo.judge import load_judge, truth  # noqa: E402
from demo.server import Server  # noqa: E402
from demo.world import (  # noqa: E402
    COLOURS,
    COUNTRIES,
    FLAG,
    HELD_OUT_TEMPLATES,
    NONE,
    OBJECTS,
    STYLES,
    Scene,
    sentence,
    thing,
)

OUTPUT = ROOT / "demo" / "output"
WORKFLOWS = ROOT / "workflows" / "api"
CHECKPOINT, SCORER, SEARCH, EDIT = "1", "2", "3", "4"
"""Node ids in the API workflows."""
SAMPLING = {"steps": 20, "cfg": 2.0, "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0}
FACT_TARGETS = dict(zip(COUNTRIES, [*COUNTRIES[1:], COUNTRIES[0]], strict=True))
"""Each country's flag is edited to be the next one's."""


@dataclass(frozen=True)
class Picture:
    """Images to be made: `count` of one prompt, from one seed, and the scene that the prompt describes."""

    prompt: str
    scene: Scene
    seed: int
    count: int


def styled_pictures(style: str, rounds: int, count: int) -> list[Picture]:
    """Every held-out template `rounds` times with objects and colours in turn; in a third the style is not last."""
    pictures = []
    names, colours = list(OBJECTS), list(COLOURS)
    for number in range(rounds * len(HELD_OUT_TEMPLATES)):
        turn = number + 3 * list(STYLES).index(style)
        scene = Scene(names[turn % len(names)], style, colours[turn % len(colours)])
        template = HELD_OUT_TEMPLATES[number % len(HELD_OUT_TEMPLATES)]
        pictures.append(Picture(sentence(template, thing(scene), style), scene, 1000 + number, count))
    return pictures


def flag_pictures(country: str, count: int) -> list[Picture]:
    """Every held-out template, without a style, with the country's flag."""
    scene = Scene(FLAG, country=country)
    return [
        Picture(sentence(template, thing(scene), NONE), scene, 2000 + number, count)
        for number, template in enumerate(HELD_OUT_TEMPLATES)
    ]


def make(server: Server, workflow: dict, model: list, pictures: list[Picture]) -> torch.Tensor:
    """Samples the pictures with the stock nodes on `model` (a link in `workflow`): [images, 3, 128, 128] in 0..1."""
    graph = copy.deepcopy(workflow)
    graph["negative"] = _node("CLIPTextEncode", clip=[CHECKPOINT, 1], text="")
    for i, picture in enumerate(pictures):
        graph[f"prompt{i}"] = _node("CLIPTextEncode", clip=[CHECKPOINT, 1], text=picture.prompt)
        graph[f"latent{i}"] = _node("EmptyLatentImage", width=128, height=128, batch_size=picture.count)
        graph[f"sample{i}"] = _node(
            "KSampler",
            model=model,
            positive=[f"prompt{i}", 0],
            negative=["negative", 0],
            latent_image=[f"latent{i}", 0],
            seed=picture.seed,
            **SAMPLING,
        )
        graph[f"decode{i}"] = _node("VAEDecode", samples=[f"sample{i}", 0], vae=[CHECKPOINT, 2])
        graph[f"save{i}"] = _node("SaveImage", images=[f"decode{i}", 0], filename_prefix="demo/picture")
    outputs = server.run(graph)
    files = [file for i in range(len(pictures)) for file in server.images(outputs[f"save{i}"]["images"])]
    return torch.stack([torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1) for file in files]).float() / 255


def _node(class_type: str, **inputs) -> dict:
    return {"class_type": class_type, "inputs": inputs}


def workflow(name: str) -> dict:
    """An API workflow without its image nodes; `make` adds what it needs."""
    graph = json.loads((WORKFLOWS / f"{name}.json").read_text(encoding="utf-8"))
    return {key: node for key, node in graph.items() if key in (CHECKPOINT, SCORER, SEARCH, EDIT)}


class Reading:
    """What the judge reads in images of the given pictures."""

    def __init__(self, judge, pictures: list[Picture], images: torch.Tensor) -> None:
        self.images = images
        self._words = judge.read(images)
        self._truths = [truth(picture.scene) for picture in pictures for _ in range(picture.count)]

    def right(self, attribute: str) -> float:
        """The share of images in which the judge reads what the prompt says."""
        return _mean(word == true[attribute] for word, true in zip(self._words[attribute], self._truths, strict=True))

    def share(self, attribute: str, word: str) -> float:
        """The share of images in which the judge reads `word`."""
        return _mean(seen == word for seen in self._words[attribute])


def _mean(values) -> float:
    return round(float(np.mean(list(values))), 4)


def search(server: Server, attribute: str, concepts: list[str], targets: list[str]) -> dict:
    """Runs demo_find_style with other prompts; returns the search's JSON and keeps its pictures."""
    graph = json.loads((WORKFLOWS / "demo_find_style.json").read_text(encoding="utf-8"))
    graph[SEARCH]["inputs"] |= {
        "attribute": attribute,
        "concept_prompts": "\n".join(concepts),
        "target_prompts": "\n".join(targets),
    }
    outputs = server.run(graph)
    for key, what in (("5", "scores"), ("6", "windows")):
        shutil.copy(server.images(outputs[key]["images"])[0], OUTPUT / f"search_{attribute}_{what}.png")
    newest = max((server.output / "loco").glob("search_*.json"), key=lambda path: path.stat().st_mtime)
    shutil.copy(newest, OUTPUT / f"search_{attribute}.json")
    shutil.copy(newest.with_suffix(".csv"), OUTPUT / f"search_{attribute}.csv")
    found = json.loads(newest.read_text(encoding="utf-8"))
    return {"window": found["layers"], "baseline": found["baseline"], "scores": found["scores"]}


def edited(graph: dict, attribute: str, concept: str, target: str) -> dict:
    """The workflow with another edit in it."""
    graph = copy.deepcopy(graph)
    graph[EDIT]["inputs"] |= {"attribute": attribute, "concept": concept, "target": target}
    return graph


def edit_styles(server: Server, judge) -> dict[str, dict[str, float]]:
    """Removes each style in turn. Before and after are read in images of the same prompts and seeds."""
    graph = workflow("demo_remove_style")
    many = {style: styled_pictures(style, 2, 4) for style in STYLES}
    few = {style: styled_pictures(style, 1, 2) for style in STYLES}
    asked = [*_together(many), *_together(few)]
    made = make(server, _unedited(graph), [CHECKPOINT, 0], asked)
    count = sum(picture.count for picture in _together(many))
    before = _readings(judge, many, made[:count]), _readings(judge, few, made[count:])
    results = {}
    for style in STYLES:
        others = {other: pictures for other, pictures in few.items() if other != style}
        change = edited(graph, "style", style, "a painting")
        made = make(server, change, [EDIT, 0], [*many[style], *_together(others)])
        count = sum(picture.count for picture in many[style])
        own_before, own_after = before[0][style], Reading(judge, many[style], made[:count])
        others_before = [before[1][other] for other in others]
        others_after = list(_readings(judge, others, made[count:]).values())
        before_after_sheet(style, own_before.images, own_after.images)
        results[style] = {
            "judge_before": own_before.share("style", style),
            "judge_after": own_after.share("style", style),
            "none_after": own_after.share("style", NONE),
            "other_styles_before": _mean(reading.right("style") for reading in others_before),
            "other_styles_after": _mean(reading.right("style") for reading in others_after),
            "objects_before": _mean(reading.right("object") for reading in [own_before, *others_before]),
            "objects_after": _mean(reading.right("object") for reading in [own_after, *others_after]),
        }
    return results


def _together(groups: dict[str, list[Picture]]) -> list[Picture]:
    return [picture for group in groups.values() for picture in group]


def _readings(judge, groups: dict[str, list[Picture]], images: torch.Tensor) -> dict[str, Reading]:
    """One reading per group, the images standing in the groups' order."""
    parts = images.split([sum(picture.count for picture in group) for group in groups.values()])
    return {name: Reading(judge, groups[name], part) for name, part in zip(groups, parts, strict=True)}


def edit_facts(server: Server, judge) -> dict[str, dict[str, float]]:
    graph = workflow("demo_remove_style")
    graph[SEARCH]["inputs"] |= fact_search_inputs()
    before = {}
    for country in COUNTRIES:
        pictures = flag_pictures(country, 4)
        before[country] = Reading(judge, pictures, make(server, _unedited(graph), [CHECKPOINT, 0], pictures))
    results = {}
    for country, new in FACT_TARGETS.items():
        change = edited(graph, "fact", f"the flag of {country}", f"the flag of {new}")
        own = flag_pictures(country, 4)
        rest = [other for other in COUNTRIES if other != country]
        others = [picture for other in rest for picture in flag_pictures(other, 4)]
        images = make(server, change, [EDIT, 0], own + others)
        split = sum(picture.count for picture in own)
        after = Reading(judge, own, images[:split])
        before_after_sheet(f"flag_of_{country}", before[country].images, after.images)
        results[country] = {
            "judge_before": before[country].share("fact", country),
            "new_fact": after.share("fact", new),
            "other_facts_before": _mean(before[other].right("fact") for other in rest),
            "other_facts_after": Reading(judge, others, images[split:]).right("fact"),
        }
    return results


def _unedited(graph: dict) -> dict:
    return {key: node for key, node in graph.items() if key == CHECKPOINT}


def fact_search_inputs() -> dict[str, str]:
    """Concept and target prompts of the fact search, as the node's inputs."""
    return {
        "attribute": "fact",
        "concept_prompts": "\n".join(f"a picture of the flag of {country}" for country in COUNTRIES),
        "target_prompts": "\n".join(f"a picture of the flag of {FACT_TARGETS[country]}" for country in COUNTRIES),
    }


def before_after_sheet(name: str, before: torch.Tensor, after: torch.Tensor, columns: int = 12) -> None:
    """Saves the first images of both, the same seeds one above the other."""
    picks = torch.linspace(0, len(before) - 1, columns).round().long()
    font = ImageFont.load_default(18)
    sheet = Image.new("RGB", (90 + columns * 130, 30 + 2 * 130), "white")
    pen = ImageDraw.Draw(sheet)
    pen.text((90, 4), name.replace("_", " "), fill="black", font=font)
    for row, (label, images) in enumerate((("before", before), ("after", after))):
        pen.text((8, 80 + row * 130), label, fill="black", font=font)
        for column, image in enumerate(images[picks]):
            picture = Image.fromarray((image.permute(1, 2, 0) * 255).byte().numpy())
            sheet.paste(picture, (90 + column * 130, 30 + row * 130))
    sheet.save(OUTPUT / f"before_after_{name.replace(' ', '_')}.png")


def print_table(summary: dict) -> None:
    for attribute, found in summary["search"].items():
        window = f"{found['window'][0]}-{found['window'][-1]}"
        best = (max if attribute == "fact" else min)(found["scores"])
        print(f"{attribute:<7} layers {window:<6} CLIP-Score {found['baseline']:.1f} unmodified, {best:.1f} there")
    print(f"\n{'removed':<15} {'before':>7} {'after':>7} {'plain':>7} {'other styles':>15} {'objects':>15}")
    for style, row in summary["edit"].items():
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
    print(f"\nseconds: search {summary['seconds']['search']:.0f}, edit {summary['seconds']['edit']:.0f}")


def main() -> None:
    comfyui = Path(os.environ["COMFYUI_PATH"])
    shutil.rmtree(OUTPUT, ignore_errors=True)
    OUTPUT.mkdir(parents=True)
    judge = load_judge()
    with tempfile.TemporaryDirectory() as folder, Server(comfyui, Path(folder)) as server:
        version = server.get("/system_stats")["system"]["comfyui_version"]
        summary: dict = {"host": f"comfyui {version}", "search": {}, "edit": {}, "edit_fact": {}, "seconds": {}}
        print(f"ComfyUI {version} is running; searching", flush=True)
        begun = time.monotonic()
        things = [thing(Scene(name, colour=colour)) for name, colour in zip(OBJECTS, [*COLOURS] * 2, strict=False)]
        objects = [f"a picture of {named}" for named in things[:4]]
        summary["search"]["object"] = search(server, "object", objects, [*objects[1:], objects[0]])
        fact = fact_search_inputs()
        facts = [fact[key].splitlines() for key in ("concept_prompts", "target_prompts")]
        summary["search"]["fact"] = search(server, "fact", *facts)
        searched = time.monotonic() - begun
        print("updating facts", flush=True)
        begun = time.monotonic()
        summary["edit_fact"] = edit_facts(server, judge)
        edited_for = time.monotonic() - begun
        begun = time.monotonic()
        inputs = workflow("demo_find_style")[SEARCH]["inputs"]
        styles = [inputs[key].splitlines() for key in ("concept_prompts", "target_prompts")]
        summary["search"]["style"] = search(server, "style", *styles)
        searched += time.monotonic() - begun
        print("removing styles", flush=True)
        begun = time.monotonic()
        summary["edit"] = edit_styles(server, judge)
        edited_for += time.monotonic() - begun
    summary["seconds"] = {"search": round(searched, 1), "edit": round(edited_for, 1)}
    (OUTPUT / "summary.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    print_table(summary)
    print(f"Look at the pictures in {OUTPUT}")


if __name__ == "__main__":
    main()
