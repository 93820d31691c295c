"""Neurons ablated in the demo model, for every style: what is removed and what is kept, by count and by how they are
chosen.

    python benchmarks/neurons.py   # a quarter of an hour on two cores

Ours are ranked by signal, and by the paper's z. Beside them: random neurons of the located layers, and neurons that
rank first in layers that hold no style, as many. Images are of held-out templates, on the same seeds, read by the
judge.
Shares of neurons are of all K and V of the located layers. Writes results/neurons.json and neurons.png. The last line
of the output is one line of JSON.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT))

import numpy as np  # noqa: E402 - the path comes first
import torch  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402

from benchmarks.edit import RESULTS, STYLE_LAYERS, Bench, few_images_of, say  # noqa: E402
from demo.jobs import PLAIN_PROMPTS  # noqa: E402
from demo.world import STYLES  # noqa: E402
from loco_core.files import write_picture, write_text  # noqa: E402
from loco_core.layers import LayerSet  # noqa: E402
from loco_core.neurons import Neurons, ablation, chosen_neurons, detect_neurons  # noqa: E402
from loco_core.pictures import drawn  # noqa: E402
from loco_core.prompts import contrast_prompts  # noqa: E402

COUNTS = (64, 96)
NEURONS = 512
"""K and V of the located layers together."""
UNLOCATED = LayerSet((10, 11), 16)
COLOURS = {"signal": "#d1495b", "z": "#2b6777", "random": "#8d99ae", "other layers": "#c8b88a"}


def detect(bench: Bench, style: str, layers: LayerSet, part: str) -> Neurons:
    others = [other for other in STYLES if other != style]
    prompts = contrast_prompts(style, "\n".join([*PLAIN_PROMPTS, *others]))
    weights = bench.engine.key_value_weights
    return detect_neurons(bench.encode, weights, prompts.concept, prompts.without, layers, prompts.others, part)


def random_neurons(neurons: Neurons, count: int) -> dict[tuple[int, str], torch.Tensor]:
    """`count` of all neurons by lot."""
    order = neurons.ranked()
    picks = torch.randperm(len(order), generator=torch.Generator().manual_seed(0))[:count]
    chosen: dict[tuple[int, str], list[int]] = {}
    for pick in picks.tolist():
        place, neuron = order[pick]
        chosen.setdefault(place, []).append(neuron)
    return {place: torch.tensor(sorted(numbers)) for place, numbers in chosen.items()}


def measure(bench: Bench, style: str, neurons: Neurons, chosen: Mapping, how: str) -> dict:
    """Shares of images: judge_after shows the style still, objects and other_styles are right."""
    pictures = few_images_of(style)
    before = bench.read_unedited(pictures)
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


def compare(bench: Bench) -> list[dict]:
    rows = []
    for style in STYLES:
        values = detect(bench, style, STYLE_LAYERS, "values")
        for count in COUNTS:
            rows.append(measure(bench, style, values, chosen_neurons(values, "count", count, 0.0), "signal"))
        most = COUNTS[-1]
        rows.append(measure(bench, style, values, chosen_neurons(values, "count", most, 0.0, "z"), "z"))
        every = detect(bench, style, STYLE_LAYERS, "keys and values")
        rows.append(measure(bench, style, every, random_neurons(every, most), "random"))
        elsewhere = detect(bench, style, UNLOCATED, "values")
        most_there = min(most, elsewhere.count)
        chosen = chosen_neurons(elsewhere, "count", most_there, 0.0)
        rows.append(measure(bench, style, elsewhere, chosen, "other layers"))
    return rows


def plot(rows: list[dict]) -> np.ndarray:
    """What is left of each style at the largest count, by how neurons are chosen. Returns uint8 [H, W, 3]."""
    figure = Figure(figsize=(9, 3.4), dpi=120, layout="constrained")
    sides = zip(figure.subplots(1, 2, sharey=True), ("judge_after", "other_styles_after"), strict=True)
    for axes, name in sides:
        for offset, (how, colour) in enumerate(COLOURS.items()):
            last = {row["style"]: row[name] for row in rows if row["chosen"] == how}
            axes.bar(np.arange(len(last)) + 0.2 * (offset - 1.5), list(last.values()), 0.19, color=colour, label=how)
        axes.set_xticks(range(len(STYLES)), STYLES, rotation=20)
        axes.set_title({"judge_after": "style left", "other_styles_after": "other styles kept"}[name], fontsize=10)
        axes.spines[["top", "right"]].set_visible(False)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=4, frameon=False)
    return drawn(figure)


def main() -> None:
    rows = compare(Bench())
    ours = [row for row in rows if (row["chosen"], row["count"]) == ("signal", COUNTS[-1])]
    summary = {
        "share_of_neurons": COUNTS[-1] / NEURONS,
        "judge_after": max(row["judge_after"] for row in ours),
        "objects_kept": min(row["objects_after"] for row in ours),
        "other_styles_kept": min(row["other_styles_after"] for row in ours),
        "random_judge_after": mean(row["judge_after"] for row in rows if row["chosen"] == "random"),
    }
    write_text(RESULTS / "neurons.json", json.dumps({"summary": summary, "ablations": rows}, indent=1) + "\n")
    write_picture(RESULTS / "neurons.png", plot(rows))
    say(json.dumps(summary))


if __name__ == "__main__":
    main()
