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
from collections.abc import Callable
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
SAMPLING = {"steps": 20, "cfg": 2.0, "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0}
BEFORE, AFTER = "CheckpointLoaderSimple", "LoCo_EditApply"
"""The nodes that give the model before and after an edit."""
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


def flag_pictures(country: str) -> list[Picture]:
    """Every held-out template, without a style, with the country's flag."""
    scene = Scene(FLAG, country=country)
    return [
        Picture(sentence(template, thing(scene), NONE), scene, 2000 + number, count=3)
        for number, template in enumerate(HELD_OUT_TEMPLATES)
    ]


def workflow(name: str) -> dict:
    """An API workflow of the pack."""
    return json.loads((WORKFLOWS / f"{name}.json").read_text(encoding="utf-8"))


def editing(search_inputs: dict[str, str]) -> dict:
    """The nodes of demo_remove_style that load, search and edit; the search with other inputs."""
    graph = workflow("demo_remove_style")
    graph = {key: node for key, node in graph.items() if node["class_type"].startswith(("Checkpoint", "LoCo_"))}
    inputs("LoCo_LayerSearch", graph).update(search_inputs)
    return graph


def the(class_type: str, graph: dict) -> str:
    """The id of the only node of that class."""
    (key,) = (key for key, node in graph.items() if node["class_type"] == class_type)
    return key


def inputs(class_type: str, graph: dict) -> dict:
    """The inputs of the only node of that class."""
    return graph[the(class_type, graph)]["inputs"]


def make(server: Server, graph: dict, model: list, pictures: list[Picture]) -> torch.Tensor:
    """Samples the pictures with the stock nodes on `model` (a link in `graph`): [images, 3, 128, 128] in 0..1."""
    checkpoint = the(BEFORE, graph)
    graph = graph | {"negative": _node("CLIPTextEncode", clip=[checkpoint, 1], text="")}
    for i, picture in enumerate(pictures):
        graph[f"prompt{i}"] = _node("CLIPTextEncode", clip=[checkpoint, 1], text=picture.prompt)
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
        graph[f"decode{i}"] = _node("VAEDecode", samples=[f"sample{i}", 0], vae=[checkpoint, 2])
        graph[f"save{i}"] = _node("SaveImage", images=[f"decode{i}", 0], filename_prefix="demo/picture")
    outputs = server.run(graph)
    files = [file for i in range(len(pictures)) for file in server.images(outputs[f"save{i}"]["images"])]
    return torch.stack([torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1) for file in files]).float() / 255


def _node(class_type: str, **inputs) -> dict:
    return {"class_type": class_type, "inputs": inputs}


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


def search(server: Server, search_inputs: dict[str, str]) -> dict:
    """Runs demo_find_style with other inputs; returns the search's JSON and keeps its pictures."""
    graph = workflow("demo_find_style")
    inputs("LoCo_LayerSearch", graph).update(search_inputs)
    outputs = server.run(graph)
    attribute = inputs("LoCo_LayerSearch", graph)["attribute"]
    for output, what in ((1, "scores"), (2, "windows")):
        link = [the("LoCo_LayerSearch", graph), output]
        (saver,) = (key for key, node in graph.items() if node["inputs"].get("images") == link)
        shutil.copy(server.images(outputs[saver]["images"])[0], OUTPUT / f"search_{attribute}_{what}.png")
    newest = max((server.output / "loco").glob("search_*.json"), key=lambda path: path.stat().st_mtime)
    shutil.copy(newest, OUTPUT / f"search_{attribute}.json")
    shutil.copy(newest.with_suffix(".csv"), OUTPUT / f"search_{attribute}.csv")
    found = json.loads(newest.read_text(encoding="utf-8"))
    return {"window": found["layers"], "baseline": found["baseline"], "scores": found["scores"]}


def object_search_inputs() -> dict[str, str]:
    """Inputs of the object search, the negative control: each thing is to become the next one."""
    things = [thing(Scene(name, colour=colour)) for name, colour in zip(OBJECTS[:4], COLOURS, strict=False)]
    return {
        "attribute": "object",
        "concept_prompts": "\n".join(f"a picture of {named}" for named in things),
        "target_prompts": "\n".join(f"a picture of {named}" for named in [*things[1:], things[0]]),
    }


def fact_search_inputs() -> dict[str, str]:
    """Inputs of the fact search: each country's flag is to become the next one's."""
    return {
        "attribute": "fact",
        "concept_prompts": "\n".join(f"a picture of the flag of {country}" for country in COUNTRIES),
        "target_prompts": "\n".join(f"a picture of the flag of {FACT_TARGETS[country]}" for country in COUNTRIES),
    }


def edited(graph: dict, attribute: str, concept: str, target: str) -> dict:
    """The graph with another edit in it."""
    graph = copy.deepcopy(graph)
    inputs("LoCo_EditApply", graph).update(attribute=attribute, concept=concept, target=target)
    return graph


def edit_styles(server: Server, judge) -> dict[str, dict[str, float]]:
    """Removes each style in turn. Before and after are read in images of the same prompts and seeds."""
    graph = editing({})
    many = {style: styled_pictures(style, 2, 4) for style in STYLES}
    few = {style: styled_pictures(style, 1, 1) for style in STYLES}
    before_many, before_few = (_readings(server, judge, graph, BEFORE, group) for group in (many, few))
    results = {}
    for style in STYLES:
        change = edited(graph, "style", style, "a painting")
        others = [other for other in STYLES if other != style]
        after = _readings(server, judge, change, AFTER, {other: few[other] for other in others} | {style: many[style]})
        before = before_few | {style: before_many[style]}
        before_after_sheet(style, before[style].images, after[style].images)
        results[style] = {
            "judge_before": before[style].share("style", style),
            "judge_after": after[style].share("style", style),
            "none_after": after[style].share("style", NONE),
            "other_styles_before": _mean(before[other].right("style") for other in others),
            "other_styles_after": _mean(after[other].right("style") for other in others),
            "objects_before": _mean(before[any_style].right("object") for any_style in STYLES),
            "objects_after": _mean(after[any_style].right("object") for any_style in STYLES),
        }
    return results


def edit_facts(server: Server, judge) -> dict[str, dict[str, float]]:
    """Updates each fact in turn. Before and after are read in images of the same prompts and seeds."""
    graph = editing(fact_search_inputs())
    pictures = {country: flag_pictures(country) for country in COUNTRIES}
    before = _readings(server, judge, graph, BEFORE, pictures)
    results = {}
    for country, new in FACT_TARGETS.items():
        change = edited(graph, "fact", f"the flag of {country}", f"the flag of {new}")
        after = _readings(server, judge, change, AFTER, pictures)
        before_after_sheet(f"flag_of_{country}", before[country].images, after[country].images)
        others = [other for other in COUNTRIES if other != country]
        results[country] = {
            "judge_before": before[country].share("fact", country),
            "new_fact": after[country].share("fact", new),
            "other_facts_before": _mean(before[other].right("fact") for other in others),
            "other_facts_after": _mean(after[other].right("fact") for other in others),
        }
    return results


def _readings(
    server: Server, judge, graph: dict, class_type: str, groups: dict[str, list[Picture]]
) -> dict[str, Reading]:
    """What the judge reads in each group's pictures, made with the model of the graph's node of that class."""
    images = make(
        server, graph, [the(class_type, graph), 0], [picture for group in groups.values() for picture in group]
    )
    parts = images.split([sum(picture.count for picture in group) for group in groups.values()])
    return {name: Reading(judge, groups[name], part) for name, part in zip(groups, parts, strict=True)}


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
        seconds = {"search": 0.0, "edit": 0.0}

        def timed(kind: str, work: Callable[[], dict]) -> dict:
            begun = time.monotonic()
            result = work()
            seconds[kind] = round(seconds[kind] + time.monotonic() - begun, 1)
            return result

        found = summary["search"]
        found["object"] = timed("search", lambda: search(server, object_search_inputs()))
        found["fact"] = timed("search", lambda: search(server, fact_search_inputs()))
        print("updating facts", flush=True)
        summary["edit_fact"] = timed("edit", lambda: edit_facts(server, judge))
        print("searching the style", flush=True)
        found["style"] = timed("search", lambda: search(server, {}))
        print("removing styles", flush=True)
        summary["edit"] = timed("edit", lambda: edit_styles(server, judge))
    summary["seconds"] = seconds
    (OUTPUT / "summary.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    print_table(summary)
    print(f"Look at the pictures in {OUTPUT}")


if __name__ == "__main__":
    main()
