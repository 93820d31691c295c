"""Neurons ablated in the demo model, for every style: what is removed and what is kept, by count and by how they are
chosen.

    COMFYUI_PATH=... python benchmarks/neurons.py   # three quarters of an hour on two cores

Ours are ranked by signal; the count is the one that the sweep chooses, by CLIP-Score. Beside them, as many: neurons
ranked by the paper's z, by measured effect, at random in the located layers, and first in layers that hold no style.
Images are of held-out templates, on the same seeds, read by the judge, whom no method sees.
Shares of neurons are of all K and V of the located layers. Writes results/neurons.json and neurons.png. The last line
of the output is one line of JSON. `--costs` measures the overhead alone, for a machine that now has nothing else to do.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# Without this folder, for a file in it has a package's name; the root comes last, for ComfyUI has a module `nodes` too.
sys.path[:] = [*(path for path in sys.path if path != str(ROOT / "benchmarks")), str(ROOT)]

import numpy as np  # noqa: E402 - the path comes first
import torch  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402

from benchmarks.edit import RESULTS  # noqa: E402
from benchmarks.edit_bench import ROWS, SAMPLING, Bench  # noqa: E402
from benchmarks.neuron_costs import ablation_overhead, detection_cost  # noqa: E402
from benchmarks.processes import say  # noqa: E402
from benchmarks.solve_time import SHAPES  # noqa: E402
from demo.jobs import PLAIN_PROMPTS, Picture, Reading, styled_pictures  # noqa: E402
from demo.server import Server  # noqa: E402
from demo.world import STYLES  # noqa: E402
from loco_core.comparison.erasure import ErasurePlan  # noqa: E402
from loco_core.diffusers_host.demo_model import DEMO, SCORER  # noqa: E402
from loco_core.diffusers_host.engine import AblatedEngine  # noqa: E402
from loco_core.drawing import drawn  # noqa: E402
from loco_core.files import write_picture, write_text  # noqa: E402
from loco_core.models.engine import Sampling  # noqa: E402
from loco_core.models.layers import LayerSet, Part  # noqa: E402
from loco_core.neurons.ablation import ChooseBy, ablation, by_place, chosen_neurons  # noqa: E402
from loco_core.neurons.detection import Neurons, Place, Ranking, detect_neurons  # noqa: E402
from loco_core.neurons.effects import EffectsRequest, measure_effects  # noqa: E402
from loco_core.neurons.sweep import SweepRequest, sweep_neurons  # noqa: E402
from loco_core.prompts import PromptPair, contrast_prompts  # noqa: E402
from loco_core.scoring.open_clip_scorer import load_scorer  # noqa: E402

# Tried for every style: an eighth to a quarter of NEURONS.
COUNTS = (64, 96, 128)
# K and V of the located layers together.
NEURONS = 512
RUNS, ROUNDS = 32, 2
FEW_STEPS = replace(SAMPLING, steps=10)
STYLE_LAYERS, UNLOCATED = LayerSet((8, 9), 16), LayerSet((10, 11), 16)
COLOURS = {"signal": "#d1495b", "effect": "#edae49", "z": "#2b6777", "random": "#8d99ae", "other layers": "#c8b88a"}


class NeuronBench(Bench):
    """The demo model, its scorer, and what the judge reads in images as large as a search's."""

    def __init__(self) -> None:
        super().__init__(DEMO)
        self.scorer = load_scorer(SCORER)

    def read(self, pictures: Sequence[Picture]) -> Reading:
        return Reading(self.judge, pictures, self.images(pictures, SAMPLING))

    @cache  # noqa: B019 - there is one, to the end
    def unedited(self, pictures: tuple[Picture, ...]) -> Reading:
        """Of the model as loaded; made once."""
        return self.read(pictures)


def images_of(style: str) -> dict[str, list[Picture]]:
    """Of every style, on held-out prompts; twice as many of this one."""
    return {one: styled_pictures(one, 2 if one == style else 1, 1) for one in STYLES}


def detect(bench: Bench, style: str, layers: LayerSet, part: Part) -> Neurons:
    others = [other for other in STYLES if other != style]
    contrast = contrast_prompts(style, "\n".join([*PLAIN_PROMPTS, *others]))
    return detect_neurons(bench.engine, contrast, layers, part)


def random_neurons(neurons: Neurons, count: int) -> dict[Place, torch.Tensor]:
    """`count` of all neurons, chosen at random."""
    order = neurons.ranked()
    picks = torch.randperm(len(order), generator=torch.Generator().manual_seed(0))[:count]
    return by_place(order[pick] for pick in picks.tolist())


def first_neurons(neurons: Neurons, count: int, ranking: Ranking = Ranking.SIGNAL) -> dict[Place, torch.Tensor]:
    return chosen_neurons(neurons, ChooseBy.COUNT, count, ranking=ranking)


def measure(bench: NeuronBench, style: str, neurons: Neurons, chosen: Mapping, how: str) -> dict:
    """Shares of images: judge_after shows the style still, objects and other_styles are right."""
    pictures = images_of(style)
    before = {name: bench.unedited(tuple(group)) for name, group in pictures.items()}
    with bench.engine.ablated(ablation(neurons, chosen)):
        after = {name: bench.read(group) for name, group in pictures.items()}
    others = [name for name in STYLES if name != style]
    row = {
        "style": style,
        "chosen": how,
        "count": sum(len(numbers) for numbers in chosen.values()),
        "judge_before": before[style].share("style", style),
        "judge_after": after[style].share("style", style),
        "none_after": after[style].share("style", "none"),
        "objects_before": mean(before[name].right("object") for name in STYLES),
        "objects_after": mean(after[name].right("object") for name in STYLES),
        "other_styles_after": mean(after[name].right("style") for name in others),
    }
    say(json.dumps(row))
    return row


def mean(values) -> float:
    return round(float(np.mean(list(values))), 4)


def plan(style: str, sampling: Sampling) -> ErasurePlan:
    """Images by which the sweep and the effects go: prompts like those that a user would give."""
    others = [name for name in STYLES if name != style]
    pairs = tuple(PromptPair(f"{prompt} in the style of {style}", prompt) for prompt in PLAIN_PROMPTS[:4])
    kept = (f"{prompt} in the style of {other}" for prompt, other in zip(PLAIN_PROMPTS[4:7], others, strict=False))
    return ErasurePlan(pairs, (*kept, PLAIN_PROMPTS[7]), (0,), sampling)


def compare(bench: NeuronBench) -> tuple[list[dict], list[dict]]:
    """The ablations' rows, and for every style the count that the sweep chooses and how far the rankings agree."""
    rows, choices = [], []
    ablated = partial(AblatedEngine, bench.engine)
    for style in STYLES:
        values = detect(bench, style, STYLE_LAYERS, Part.VALUES)
        swept = sweep_neurons(
            SweepRequest(plan(style, SAMPLING), values, COUNTS), bench.engine, ablated, bench.scorer, ROWS
        )
        count = swept.knee
        for tried in COUNTS:
            rows.append(measure(bench, style, values, first_neurons(values, tried), "signal"))
        rows.append(measure(bench, style, values, first_neurons(values, count, Ranking.Z), "z"))
        request = EffectsRequest(plan(style, FEW_STEPS), values, RUNS, ROUNDS)
        values = measure_effects(request, bench.engine, ablated, bench.scorer, ROWS)
        rows.append(measure(bench, style, values, first_neurons(values, count, Ranking.EFFECT), "effect"))
        every = detect(bench, style, STYLE_LAYERS, Part.BOTH)
        rows.append(measure(bench, style, every, random_neurons(every, count), "random"))
        elsewhere = detect(bench, style, UNLOCATED, Part.VALUES)
        chosen = first_neurons(elsewhere, min(count, elsewhere.count))
        rows.append(measure(bench, style, elsewhere, chosen, "other layers"))
        agreement = {
            f"{one}_{other}": round(values.agreement(one, other), 3)
            for one, other in itertools.combinations((Ranking.EFFECT, Ranking.SIGNAL, Ranking.Z), 2)
        }
        choices.append({"style": style, "count": count, "agreement": agreement})
        say(json.dumps(choices[-1]))
    return rows, choices


def at_chosen(rows: list[dict], choices: list[dict], how: str) -> list[dict]:
    """The rows of neurons chosen in one way, at each style's count; there may be fewer neurons elsewhere."""
    counts = {choice["style"]: choice["count"] for choice in choices}
    return [row for row in rows if row["chosen"] == how and (how != "signal" or row["count"] == counts[row["style"]])]


def plot(rows: list[dict], choices: list[dict]) -> np.ndarray:
    """What is left of each style at its count, by how neurons are chosen. Returns uint8 [H, W, 3]."""
    figure = Figure(figsize=(9, 3.4), dpi=120, layout="constrained")
    sides = zip(figure.subplots(1, 2, sharey=True), ("judge_after", "other_styles_after"), strict=True)
    for axes, name in sides:
        for offset, (how, colour) in enumerate(COLOURS.items()):
            heights = [row[name] for row in at_chosen(rows, choices, how)]
            axes.bar(np.arange(len(heights)) + 0.16 * (offset - 2), heights, 0.15, color=colour, label=how)
        axes.set_xticks(range(len(STYLES)), STYLES, rotation=20)
        axes.set_title({"judge_after": "style left", "other_styles_after": "other styles kept"}[name], fontsize=10)
        axes.spines[["top", "right"]].set_visible(False)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=5, frameon=False)
    return drawn(figure)


def costs() -> dict:
    """The overhead of an ablation, and what detecting takes by shape of model."""
    comfyui = os.environ.get("COMFYUI_PATH") or sys.exit("COMFYUI_PATH names no ComfyUI folder: the overhead needs one")
    with tempfile.TemporaryDirectory() as folder, Server(Path(comfyui), Path(folder)) as server:
        overhead = ablation_overhead(server)
    return {"overhead": overhead, "detection": {shape: detection_cost(shape) for shape in SHAPES}}


def summary(results: dict) -> dict:
    """What the last line says: the worst style at the count that the sweep chooses for each."""
    rows = results["ablations"]
    ours = at_chosen(rows, results["choices"], "signal")
    return {
        "share_of_neurons": max(row["count"] for row in ours) / NEURONS,
        "judge_after": max(row["judge_after"] for row in ours),
        "objects_kept": min(row["objects_after"] for row in ours),
        "other_styles_kept": min(row["other_styles_after"] for row in ours),
        "random_judge_after": mean(row["judge_after"] for row in rows if row["chosen"] == "random"),
        "overhead": results["overhead"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--costs", action="store_true", help="measure the costs anew, and keep the other results")
    only_costs = parser.parse_args().costs
    results = costs()
    if only_costs:
        results = json.loads((RESULTS / "neurons.json").read_text(encoding="utf-8")) | results
    else:
        results["ablations"], results["choices"] = compare(NeuronBench())
        write_picture(RESULTS / "neurons.png", plot(results["ablations"], results["choices"]))
    write_text(RESULTS / "neurons.json", json.dumps(results, indent=1) + "\n")
    say(json.dumps(summary(results)))


if __name__ == "__main__":
    main()
