"""The probe against the exhaustive search: how often each is right, and at what cost; how sure intervals are; speed.

    COMFYUI_PATH=... python benchmarks/search.py   # a quarter of an hour on two cores
    python benchmarks/search.py --planting FOLDER  # four minutes more; a model that demo/train.py has trained
    python benchmarks/search.py --replay           # without the timings of (c); writes no file

(a) Exhaustive search is replayed on stored scores of the demo model (score_tables.py): for every style and fact,
searches with the images of PAIRS pairs and SEEDS seeds are drawn from them, with replacement; right is the window that
was planted. Mean effects are scaled, for each concept apart, until it is right in 70 %, 90 % and 99 % of cases; what
varies between images is kept as it is. The probe is asked live, with its target mixed with the concept until the
planted layers have just that effect in images (probe_cases.py), and at full strength. Right are the planted layers and
no others, the size of the window not given (right_of_size: given, as it is to exhaustive search), whether or not the
difference is called none, which exhaustive search is not asked either (said_no_effect). A case counts where
images at full strength leave no doubt that the model knows the concept in the layers where it was planted, and in all
of them: a short training can make so little use of one that the other alone is as right an answer (right_of_all: every
case). Objects were planted nowhere: what is said of them is reported.
(b) Rows and seconds of a probe in SDXL's shape, 70 layers, of random weights (random_xl.py).
(c) On the demo model, the same windows, prompts and seeds: one image at a time, as the authors' script does, and
packed; and, in ComfyUI, a batch of interventions against a batch without (search_overhead.py). (Coverage) 95 %
intervals from samples of 8 and 16 images, against the mean of a sample ten times as large. Writes results/search.json.
The last line is one line of JSON. Costs are shares of the denoiser's rows that the exhaustive search takes.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# Without this folder, for a file in it has a package's name; the root comes last, for ComfyUI has a module `nodes` too.
sys.path[:] = [*(path for path in sys.path if path != str(ROOT / "benchmarks")), str(ROOT)]

import numpy as np  # noqa: E402 - the path comes first

from benchmarks.comfy_in_process import host_in_process  # noqa: E402
from benchmarks.exhaustive_replays import (  # noqa: E402
    PAIRS,
    SEEDS,
    accuracy,
    coverage,
    exhaustive_verdicts,
    plan_of,
    replays,
    scale_for,
)
from benchmarks.exhaustive_replays import ROWS as EXHAUSTIVE_ROWS  # noqa: E402
from benchmarks.probe_cases import (  # noqa: E402
    ROWS,
    SAMPLING,
    Case,
    Pooling,
    Setting,
    Shown,
    Task,
    cases,
    effects_by_strength,
    planted,
    setting_of,
    shown,
    strength_for,
)
from benchmarks.processes import in_processes, say  # noqa: E402
from benchmarks.random_xl import NARROW as NARROW_XL  # noqa: E402
from benchmarks.random_xl import PLANTED as XL_PLANTED  # noqa: E402
from benchmarks.random_xl import ProbeCost, RandomXL, probe_cost  # noqa: E402
from benchmarks.score_tables import FIRST_SEED, NARROW, concepts  # noqa: E402
from benchmarks.search_overhead import patch_overhead  # noqa: E402
from loco_core.diffusers_host.demo_model import DEMO, SCORER, demo_pipeline  # noqa: E402
from loco_core.diffusers_host.engine import DiffusersEngine  # noqa: E402
from loco_core.files import write_text  # noqa: E402
from loco_core.localization.plan import LEVELS  # noqa: E402
from loco_core.localization.search import search  # noqa: E402
from loco_core.localization.verdict import Kind  # noqa: E402
from loco_core.models.engine import Intervention, Row  # noqa: E402
from loco_core.models.layers import LayerSet  # noqa: E402
from loco_core.prompts import Attribute  # noqa: E402
from loco_core.scoring.open_clip_scorer import load_scorer  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results"
DIFFICULTIES = (0.7, 0.9, 0.99)
FULL = "full strength"
# Styles and facts, and those of them by which settings of a probe and poolings are compared, on the demo model.
KNOWN = tuple(name for name, (attribute, _) in concepts().items() if attribute is not Attribute.OBJECT)
COMPARED = KNOWN[::2]
# What such a search probes.
DEFAULT = setting_of(plan_of("woodcut").probe)
# The settings that are compared, of all of which the largest is measured.
COMPARED_SETTINGS = (DEFAULT, *itertools.starmap(Setting, itertools.product((1, 2, 4), (1, 2, 5, 10))))
LARGEST = Setting(4, 10)
# Width and height of images in SDXL's shape.
XL_SIZE = 64
RUNS, BATCH = 3, 16


# --- probes, live -----------------------------------------------------------------------------------------------------


def tasks(folders: Sequence[Path], strengths: dict[str, dict[str, float]]) -> list[Task]:
    """What to probe: every concept in every model, at the strength of each difficulty.

    In the default setting, and of some on the demo model in all that are compared.
    """
    every, asked = replace(DEFAULT, most_places=0), []
    for folder, concept in itertools.product(folders, concepts()):
        for number, (difficulty, strength) in enumerate(strengths.get(concept, {FULL: 1.0}).items()):
            task = Task(folder, concept, difficulty, strength, FIRST_SEED + number, every, (DEFAULT,))
            if folder == DEMO and concept in COMPARED:
                task = replace(task, measured=LARGEST, settings=COMPARED_SETTINGS, poolings=tuple(Pooling))
            asked.append(task)
    return asked


def named(difficulty: float) -> str:
    return f"exhaustive right in {difficulty:.0%}"


def shares_right(made: Iterable[Case], of_size: bool = False) -> dict[str, float]:
    """By difficulty: how many of these cases are right; `of_size`: where they are told the size of the window."""
    by_difficulty: dict[str, list[bool]] = {}
    for case in made:
        right = case.right_of_size if of_size else case.right
        if right is not None:
            by_difficulty.setdefault(case.difficulty, []).append(right)
    return {difficulty: round(float(np.mean(right)), 4) for difficulty, right in by_difficulty.items()}


def compare_settings(made: Sequence[Case]) -> list[dict]:
    """Of every setting, on the demo model: its accuracy by difficulty, its rows as a share of exhaustive search's."""
    compared = []
    for setting in COMPARED_SETTINGS:
        own = [case for case in made if case.setting == setting]
        compared.append(
            {
                **asdict(setting),
                "right": shares_right(own),
                "right_of_size": shares_right(own, of_size=True),
                "cost": worst_cost(own),
            }
        )
    return compared


def smallest_cost(compared: Sequence[dict]) -> float:
    """Of the cheapest setting that is right as often as the default, at every difficulty."""
    (default,) = (row["right"] for row in compared if asdict(DEFAULT).items() <= row.items())
    as_good = [row for row in compared if all(row["right"][key] >= share for key, share in default.items())]
    return min(row["cost"] for row in as_good)


def compare_poolings(made: Sequence[Case]) -> dict[str, dict]:
    """Of every pooling, on the demo model: its accuracy by difficulty, and the margin, in the mean and at least."""
    compared = {}
    for pooling in Pooling:
        own = [case for case in made if case.pooling is pooling]
        margins = [case.margin for case in own]
        margin = {"mean": round(float(np.mean(margins)), 4), "least": round(min(margins), 4)}
        compared[str(pooling)] = {
            "right": shares_right(own),
            "right_of_size": shares_right(own, of_size=True),
            "margin": margin,
        }
    return compared


def one_of_each(made: Iterable[Case]) -> list[Case]:
    """Of every concept and difficulty the first case."""
    found: dict[tuple[str, str], Case] = {}
    for case in made:
        found.setdefault((case.concept, case.difficulty), case)
    return list(found.values())


def about_planting(folder: Path, made: Iterable[Case], images: dict[tuple[str, str], Shown]) -> dict:
    """What was planted in a model, what its images show of that, and what was found."""
    own = [case for case in made if case.planting == folder.name]
    return {
        "planted": {str(attribute): str(layers) for attribute, layers in planted(folder).items()},
        "in_images": {
            concept: asdict(seen) | {"planted_there": seen.planted_there}
            for (name, concept), seen in images.items()
            if name == folder.name
        },
        "right": shares_right(own),
        "right_of_size": shares_right(own, of_size=True),
        "found": [described(case) for case in one_of_each(own)],
    }


def described(case: Case) -> dict:
    """A case for JSON."""
    plain = {name: getattr(case, name) for name in ("kind", "strength", "rows", "right", "right_of_size")}
    sets = {name: str(getattr(case, name)) for name in ("layers", "smallest", "rival")}
    numbers = {name: round(getattr(case, name), 4) for name in ("share", "rival_share")}
    return {"concept": case.concept, "difficulty": case.difficulty, **sets, **numbers, **plain}


def worst_cost(made: Iterable[Case]) -> float:
    return round(max(case.rows for case in made) / EXHAUSTIVE_ROWS, 4)


def in_sdxl(where: LayerSet | None) -> ProbeCost:
    plan = replace(plan_of("woodcut"), sampling=replace(SAMPLING, width=XL_SIZE, height=XL_SIZE))
    return probe_cost(plan, RandomXL(NARROW_XL, where))


def confirmed(concept: str) -> dict:
    """Of a search with default settings and its images, without a scorer: what it finds, its rows and seconds."""
    engine, plan = DiffusersEngine(demo_pipeline()), plan_of(concept)
    begun = time.perf_counter()
    result = search(engine, None, plan, ROWS)
    took = round(time.perf_counter() - begun, 1)
    return {"layers": str(result.layers), "rows": result.rows, "images": len(result.cells), "seconds": took}


# --- timings ----------------------------------------------------------------------------------------------------------


def packed_speedup() -> float:
    """Seconds of the plain loop over those of packed batches, for the same images."""
    engine, scorer = DiffusersEngine(demo_pipeline()), load_scorer(SCORER)
    pair = concepts()["woodcut"][1][0]
    concept, target = engine.encode([pair.concept, pair.target])
    changed = [Row(concept, FIRST_SEED + i, Intervention(NARROW[i % 15], target)) for i in range(BATCH)]

    def packed() -> None:
        scorer.score(engine.generate(changed, SAMPLING), [pair.concept] * BATCH)

    def one_by_one() -> None:
        for row in changed:
            again = engine.encode([pair.concept, pair.target])  # the authors' script encodes for every image
            own = Row(again[0], row.seed, Intervention(row.intervention.layers, again[1]))
            scorer.score(engine.generate([own], SAMPLING), [pair.concept])

    engine.generate(changed[:2], SAMPLING)
    return round(statistics.median(seconds(one_by_one) / seconds(packed) for _ in range(RUNS)), 3)


def seconds(work) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--planting", action="append", type=Path, default=[], metavar="FOLDER", help="another model")
    parser.add_argument("--replay", action="store_true", help="without the timings of (c); writes no file")
    asked = parser.parse_args()
    comfyui = os.environ.get("COMFYUI_PATH", "")
    if not asked.replay and not comfyui:
        sys.exit("COMFYUI_PATH names no ComfyUI folder: the overhead needs one")
    folders = [DEMO, *(folder.resolve() for folder in asked.planting)]
    random = np.random.default_rng(0)

    judged = exhaustive_verdicts()
    say(json.dumps(judged, indent=1))
    searches = {concept: replays(concept, random) for concept in KNOWN}
    scales = {name: {named(share): scale_for(own, share) for share in DIFFICULTIES} for name, own in searches.items()}
    exhaustive = {
        difficulty: round(
            float(np.mean([accuracy(own, scales[name][difficulty]) for name, own in searches.items()])), 4
        )
        for difficulty in map(named, DIFFICULTIES)
    }
    say(f"exhaustive search, {PAIRS} pairs x {SEEDS} seeds: {json.dumps(exhaustive)}")

    with in_processes() as pool:
        effects = dict(zip(KNOWN, pool.map(effects_by_strength, KNOWN), strict=True))
        strengths = {
            name: {difficulty: strength_for(scale, effects[name]) for difficulty, scale in own.items()} | {FULL: 1.0}
            for name, own in scales.items()
        }
        say(f"strengths of the target: {json.dumps(strengths, indent=1)}")
        seen = list(itertools.product(folders, KNOWN))
        images = {
            (folder.name, concept): effect
            for (folder, concept), effect in zip(seen, pool.map(shown, *zip(*seen, strict=True)), strict=True)
        }
        made = []
        for found in pool.map(cases, tasks(folders, strengths)):
            made += found
            (first, *_) = (case for case in found if case.setting == DEFAULT)
            say(f"{first.planting}: {json.dumps(described(first))}")

    default = [case for case in made if case.pooling is Pooling.WEIGHTED and case.setting == DEFAULT]
    compared = [case for case in made if case.planting == DEMO.name and case.concept in COMPARED]
    told = [case for case in default if case.right is not None]
    known = [case for case in told if images[case.planting, case.concept].planted_there]
    right = shares_right(known)
    measured = {
        "exhaustive": exhaustive,
        "exhaustive_verdicts": judged,
        "scales": scales,
        "effects_by_strength": {name: own.round(3).tolist() for name, own in effects.items()},
        "probe": {
            **asdict(DEFAULT),
            "right": right,
            "right_of_size": shares_right(known, of_size=True),
            "right_of_all": shares_right(told),
        },
        "said_no_effect": {
            difficulty: round(float(np.mean([case.kind is Kind.NO_EFFECT for case in own])), 4)
            for difficulty in right
            if (own := [case for case in known if case.difficulty == difficulty])
        },
        "cases": {difficulty: sum(case.difficulty == difficulty for case in known) for difficulty in right},
        "objects_cost": worst_cost(case for case in default if case.attribute is Attribute.OBJECT),
        "settings": compare_settings([case for case in compared if case.pooling is Pooling.WEIGHTED]),
        "poolings": compare_poolings([case for case in compared if case.setting == DEFAULT]),
        "plantings": {folder.name: about_planting(folder, default, images) for folder in folders},
        "confirmed": {concept: confirmed(concept) for concept in ("woodcut", "flags, 1 on")},
        "coverage": coverage(random),
    }
    narrow = {f"layers {where or 'none'} planted": in_sdxl(where) for where in (None, XL_PLANTED)}
    measured["70 layers"] = {name: asdict(cost) for name, cost in narrow.items()}
    for name in (
        "probe",
        "said_no_effect",
        "cases",
        "objects_cost",
        "settings",
        "poolings",
        "confirmed",
        "coverage",
        "70 layers",
    ):
        say(f"{name}: {json.dumps(measured[name], indent=1)}")
    summary = {
        "probe_accuracy": min(right.values()),
        "probe_cost": worst_cost(known),
        "probe_cost_70": round(max(cost.rows / cost.exhaustive_rows for cost in narrow.values()), 4),
        "confirm_cost": round(max(found["rows"] for found in measured["confirmed"].values()) / EXHAUSTIVE_ROWS, 4),
        "smallest_cost": smallest_cost(measured["settings"]),
        "exhaustive_accuracy": exhaustive[named(0.9)],
        "coverage_95": round(float(np.mean(list(measured["coverage"].values()))), 4),
        "map_levels": LEVELS,
    }
    if not asked.replay:
        summary["packed_speedup"] = packed_speedup()
        overhead = patch_overhead(*host_in_process(comfyui))
        summary["patch_overhead"] = round(overhead.ratio, 4)
        content = {"summary": summary, **measured, "overhead": asdict(overhead)}
        write_text(RESULTS / "search.json", json.dumps(content, indent=1) + "\n")
    say(json.dumps(summary))


if __name__ == "__main__":
    main()
