"""Our edits beside UCE's, SPEED's, OCE's and the paper's: what is erased, what is kept, and what it costs.

    python benchmarks/edit.py                     # two hours on two cores; COMFYUI_PATH for modes and transformer
    python benchmarks/edit.py --planting FOLDER   # as long again; a model that demo/train.py has trained

Everybody edits the same concept prompts towards the same targets and is given the same prompts to preserve. What is
free in a method, its tokens, layers, ridge and retain weights, is tuned by the judge on validation prompts and seeds of
every style and of five at once, and of every fact (edit_methods.py); every style and fact, three styles at once and
five are then measured on others (edit_bench.py). Ours is `automatic`: its settings come from what the model predicts,
without the judge, for each edit anew; `ours by hand` is tuned as the peers are. `published` is each with its authors'
settings. On the demo transformer peers edit the weight by which text comes in, as `text_in` does; `localized` is ours
at the blocks that know it. Writes results/edit.json and edit.png. The last line of the output is one line of JSON.

What a method came to on a model is kept in the file that --jobs names, a line each, and is not measured again.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import as_completed
from contextlib import AbstractContextManager
from dataclasses import asdict
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# Without this folder, for a file in it has a package's name; the root comes last, for ComfyUI has a module `nodes` too.
sys.path[:] = [*(path for path in sys.path if path != str(ROOT / "benchmarks")), str(ROOT)]

import numpy as np  # noqa: E402 - the path comes first
import torch  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402
from scipy import stats  # noqa: E402

from benchmarks import solve_time  # noqa: E402
from benchmarks.edit_bench import (  # noqa: E402
    SAMPLING,
    TRANSFORMER,
    Bench,
    Task,
    bench_of,
    held_out_sheet,
    validation_sheet,
)
from benchmarks.edit_methods import (  # noqa: E402
    METHODS,
    REFUSALS,
    TEXT_IN_METHODS,
    Method,
    Size,
    automatic,
    edited,
    named,
    tuned,
)
from benchmarks.modes import modes_difference  # noqa: E402
from benchmarks.processes import in_processes, say  # noqa: E402
from demo.world import COUNTRIES, STYLES  # noqa: E402
from loco_core.diffusers_host.demo_model import DEMO  # noqa: E402
from loco_core.drawing import drawn  # noqa: E402
from loco_core.editing.calibrate import calibration_rows  # noqa: E402
from loco_core.editing.check import check_plan  # noqa: E402
from loco_core.editing.closed_form import leading_directions  # noqa: E402
from loco_core.editing.recipe import EditSettings, Preservation  # noqa: E402
from loco_core.editing.report import ROWS_OF_AN_IMAGE  # noqa: E402
from loco_core.editing.solve import solve_edit  # noqa: E402
from loco_core.editing.wordings import MOST_WORDINGS  # noqa: E402
from loco_core.files import write_picture, write_text  # noqa: E402
from loco_core.prompts import Attribute  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results"
# What is removed at once: each style by itself, three, five.
GROUPS = (
    *((style,) for style in STYLES),
    ("pointillism", "woodcut", "blueprint"),
    tuple(style for style in STYLES if style != "watercolor"),
)
TASKS = (*(Task(Attribute.STYLE, group) for group in GROUPS), *(Task(Attribute.FACT, (one,)) for one in COUNTRIES))
# On these the methods are tuned, for styles and for facts apart.
TUNED_ON = {
    attribute: tuple(task for task in TASKS if task.attribute is attribute and len(task.concepts) != 3)
    for attribute in (Attribute.STYLE, Attribute.FACT)
}
AUTOMATIC, BY_HAND = "automatic", "ours by hand"
# Of a transformer: ours at the layer by which text comes in.
TEXT_IN = "text_in"
COLOURS = {"erased": "#d1495b", "kept_styles": "#2b6777", "kept_objects": "#8d99ae"}


def measured_rows(
    bench: Bench, tasks: Iterable[Task], change: Callable[[Task], AbstractContextManager[Size]]
) -> list[dict]:
    """Every task whose concepts the model knows, on its held-out sheet, with the model changed for it. What a method
    refuses to edit is not edited.
    """
    rows = []
    for task in tasks:
        measured = bench.measured(task, held_out_sheet)
        if not measured.known:
            continue
        try:
            with change(task) as size:
                figures = {**asdict(size), **measured.now()}
        except REFUSALS as error:
            figures = {"refused": str(error), **asdict(Size(0, 0, 0)), **measured.now()}
        rows.append({"attribute": task.attribute, "edit": list(task.concepts), **figures})
    return rows


def of_method(folder: Path, name: str) -> dict:
    """A method on a model: tuned and, on the demo model, as published."""
    bench, method = bench_of(folder), methods_of(folder)[name]
    best, seen = {}, []
    for attribute, tasks in TUNED_ON.items():
        measured = {task: own for task in tasks if (own := bench.measured(task, validation_sheet)).known}
        best[attribute], tried = tuned(bench, method, measured)
        seen += tried
    edited_by = partial(edited, bench, method)
    published = TASKS[: len(STYLES)] if folder == DEMO else ()
    return {
        "planting": folder.name,
        "method": name_of(method),
        "params": {str(attribute): named(own) for attribute, own in best.items()},
        "seen": seen,
        "rows": measured_rows(bench, TASKS, lambda task: edited_by(task, best[task.attribute])),
        "published": measured_rows(bench, published, lambda task: edited_by(task, method.published)),
    }


def methods_of(folder: Path) -> dict[str, Method]:
    """What is tuned on a model."""
    return TEXT_IN_METHODS if folder == TRANSFORMER else METHODS


def of_automatic(folder: Path, everywhere: bool = False) -> dict:
    """Ours on a model, at the layers that know what is to go, or everywhere."""
    bench = bench_of(folder)
    rows = measured_rows(bench, TASKS, partial(automatic, bench, everywhere=everywhere))
    return {"planting": folder.name, "method": TEXT_IN if everywhere else AUTOMATIC, "rows": rows}


def mean_of(rows: Sequence[dict], name: str, attribute: Attribute, count: int = 1) -> float:
    chosen = [row[name] for row in rows if row["attribute"] == attribute and len(row["edit"]) == count]
    return round(float(np.mean(chosen)), 4)


def table(found: Sequence[dict], name: str, attribute: Attribute, count: int = 1) -> dict[str, dict[str, float]]:
    """By planting and method, the mean over edits of so many concepts."""
    by_planting: dict[str, dict[str, float]] = {}
    for one in found:
        own = mean_of(one["rows"], name, attribute, count)
        by_planting.setdefault(one["planting"], {})[one["method"]] = own
    return by_planting


def check_correlation(found: Sequence[dict]) -> float:
    """Spearman's, over all settings that were tried: of what is removed in the prediction, and in the judge's eyes; of
    each setting the mean over the styles, or the facts, on which it was tried.
    """
    shares: dict[tuple, list[tuple[float, float]]] = {}
    for one in found:
        for figures in one.get("seen", ()):
            asked = (figures["edit"][0] in COUNTRIES, *sorted(figures["params"].items()))
            own = figures["removed"], figures["erased"]
            shares.setdefault((one["planting"], one["method"], *asked), []).append(own)
    means = [np.mean(own, axis=0) for own in shares.values()]
    return round(float(stats.spearmanr(*zip(*means, strict=True))[0]), 4)


def calibration_images() -> float:
    """What a calibration takes at most, in images of 20 steps: of as many wordings and prompts as it can ask."""
    plan = check_plan(solve_time.recipe_of(MOST_WORDINGS), SAMPLING, 0)
    return round(calibration_rows(plan) / ROWS_OF_AN_IMAGE, 1)


def preservation_error(bench: Bench, task: Task) -> float:
    """max |(W^ - W) q| / |W q| over the directions preserved exactly, with float32 weights."""
    edit = solve_edit(bench.encode, bench.recipe(task, EditSettings(preservation=Preservation.EXACT)))
    recipe = edit.recipe
    kept = bench.encode(list(dict.fromkeys([*(pair.target for pair in recipe.pairs), "", *recipe.preserve])))
    basis = leading_directions([own.tokens.T for own in kept], recipe.settings.preserved_tolerance)
    before = [bench.engine.key_value_weights(layer) for layer in recipe.layers]
    with bench.engine.edited(edit):
        after = [bench.engine.key_value_weights(layer) for layer in recipe.layers]
    errors = [
        (torch.linalg.norm((new - old).double() @ basis, dim=0) / torch.linalg.norm(old.double() @ basis, dim=0))
        for pair, changed in zip(before, after, strict=True)
        for old, new in zip(pair, changed, strict=True)
    ]
    return torch.cat(errors).max().item()


def plot(found: Sequence[dict]) -> np.ndarray:
    """Erased and kept on the demo model by method, for one, three and five styles at once. Returns uint8 [H, W, 3]."""
    own = {one["method"]: one["rows"] for one in found if one["planting"] == DEMO.name}
    figure = Figure(figsize=(10, 3.6), dpi=120, layout="constrained")
    for axes, count in zip(figure.subplots(1, 3, sharey=True), (1, 3, 5), strict=True):
        for offset, (name, colour) in enumerate(COLOURS.items()):
            values = [mean_of(rows, name, Attribute.STYLE, count) for rows in own.values()]
            places = np.arange(len(own)) + 0.26 * (offset - 1)
            axes.bar(places, values, 0.24, color=colour, label=name.replace("_", " "))
        axes.set_title(f"{count} style{'s' if count > 1 else ''} removed", fontsize=10)
        axes.set_xticks(range(len(own)), own, rotation=30)
        axes.set_ylim(0, 1.04)
        axes.spines[["top", "right"]].set_visible(False)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=3, frameon=False)
    return drawn(figure)


def compared(folders: Sequence[Path], kept: Path | None) -> list[dict]:
    """Every method on every model; of `kept`, what is there is taken, and to it the rest is added."""
    lines = kept.read_text(encoding="utf-8").splitlines() if kept and kept.is_file() else []
    found = [one for one in map(json.loads, lines) if one["planting"] in {folder.name for folder in folders}]
    done = {(one["planting"], one["method"]) for one in found}
    with in_processes() as pool:
        jobs = [pool.submit(of_automatic, folder) for folder in folders if (folder.name, AUTOMATIC) not in done]
        if TRANSFORMER in folders and (TRANSFORMER.name, TEXT_IN) not in done:
            jobs.append(pool.submit(of_automatic, TRANSFORMER, everywhere=True))
        for folder in folders:
            for name, method in methods_of(folder).items():
                if (folder.name, name_of(method)) not in done:
                    jobs.append(pool.submit(of_method, folder, name))
        for job in as_completed(jobs):
            found.append(job.result())
            say(json.dumps(without_seen(found[-1])))
            if kept:
                with kept.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(found[-1]) + "\n")
    methods = [*map(name_of, METHODS.values()), *TEXT_IN_METHODS]
    order = [(folder.name, method) for folder in folders for method in (AUTOMATIC, TEXT_IN, *methods)]
    return sorted(found, key=lambda one: order.index((one["planting"], one["method"])))


def transformer_summary(found: Sequence[dict]) -> dict[str, dict[str, float]]:
    """By method, ours at the blocks that know a style first."""
    names = {AUTOMATIC: "localized"}
    return {
        names.get(one["method"], one["method"]): {
            name: mean_of(one["rows"], name, Attribute.STYLE) for name in ("harmonic", "side", "erased", "removed")
        }
        | {f"{name}_facts": mean_of(one["rows"], name, Attribute.FACT) for name in ("harmonic", "side")}
        for one in found
    }


def without_seen(one: dict) -> dict:
    """What a method came to, without all that was tried on the way."""
    return {key: value for key, value in one.items() if key != "seen"}


def name_of(method: Method) -> str:
    return BY_HAND if method.change is None else method.name


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--planting", action="append", type=Path, default=[], metavar="FOLDER", help="another model")
    parser.add_argument("--jobs", type=Path, metavar="FILE", help="where results are kept while others are measured")
    arguments = parser.parse_args()
    comfyui = os.environ.get("COMFYUI_PATH")
    found = compared([DEMO, *(folder.resolve() for folder in arguments.planting)], arguments.jobs)
    of_transformer = compared([TRANSFORMER], arguments.jobs) if comfyui else []
    costs, speedup = solve_time.measure()
    solves = {count: asdict(cost) for count, cost in costs.items()}
    say(f"{json.dumps(solves)}, {speedup} times as fast as the paper's form")
    modes, effect = None, None
    if comfyui:
        from demo.server import Server

        with tempfile.TemporaryDirectory() as output:
            with Server(Path(comfyui), Path(output)) as server:
                modes, effect = modes_difference(server)
        say(f"modes: {modes:.1e} apart, effect {effect:.2f} of the latent")
    style = Attribute.STYLE
    own = [row for row in found[0]["rows"] if len(row["edit"]) == 1]  # of the demo model, automatic
    harmonic = table(found, "harmonic", style)
    summary = {
        "harmonic": harmonic,
        "harmonic_5": table(found, "harmonic", style, 5),
        "harmonic_facts": table(found, "harmonic", Attribute.FACT),
        "side": table(found, "side", style),
        "automatic_regret": {name: round(own[BY_HAND] - own[AUTOMATIC], 4) for name, own in harmonic.items()},
        "check_correlation": check_correlation(found),
        "calibration_images": calibration_images(),
        **{f"solve_{concepts}": cost.seconds for concepts, cost in costs.items()},
        "solve_100_mb": costs[100].peak_mb,
        "speedup": speedup,
        "lora_rank": {"demo": max(row["rank"] for row in own), "sdxl": costs[1].rank},
        "lora_mb": {"demo": round(max(row["file_bytes"] for row in own) / 1e6, 3), "sdxl": costs[1].lora_mb},
        "preservation_error": max(preservation_error(bench_of(DEMO), task) for task in TASKS[: len(STYLES)]),
        "modes_difference": modes,
        "transformer": transformer_summary(of_transformer),
    }
    content = {
        "summary": summary,
        "solves": {count: asdict(cost) for count, cost in costs.items()},
        "modes_effect": effect,
        "edits": [without_seen(one) for one in (*found, *of_transformer)],
    }
    write_text(RESULTS / "edit.json", json.dumps(content, indent=1) + "\n")
    write_picture(RESULTS / "edit.png", plot(found))
    say(json.dumps(summary))


if __name__ == "__main__":
    main()
