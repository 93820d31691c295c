"""The race against the exhaustive search: how often each is right, and what it costs; how sure intervals are; how fast.

    COMFYUI_PATH=... python benchmarks/search.py   # ten minutes on two cores
    python benchmarks/search.py --replay           # without the timings: a minute, makes no image

(a) On stored scores of the demo model (score_tables.py): searches with IMAGES images are drawn from them, with
replacement, and both strategies replayed, for every style and fact; right is the window that was planted. Mean effects
are scaled, for each concept apart, until exhaustive search is right in 70 %, 90 % and 99 % of cases; what varies
between images is kept as it is.
(b) The same with tables of SDXL's size, 70 layers, windows of 5 and of 3, a window planted anywhere. The effect of a
window is the share of the planted layers that it covers; its noise is measured in (a), for a concept drawn anew for
each search: what every window has, and what varies with the effect, in all windows of an image alike as far as
measured. The cost counts every image, the unmodified ones and those for the verdict among them; a short image costs
its steps.
(c) On the demo model, the same windows, prompts and seeds: one image at a time, as the authors' script does, and
packed; and, in ComfyUI, a batch of interventions against a batch without (search_overhead.py). (Coverage) 95 %
intervals from samples of 8 and 16 images, against the mean of a sample ten times as large. Writes results/search.json.
The last line is one line of JSON.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT))

import numpy as np  # noqa: E402 - the path comes first

from benchmarks.score_tables import ALL, FIRST_SEED, MANY, NARROW, QUICK, concepts, read_tables  # noqa: E402
from benchmarks.search_overhead import host_in_process, patch_overhead  # noqa: E402
from benchmarks.solve_time import text_layers  # noqa: E402
from demo.jobs import GUIDANCE, SIZE, STEPS  # noqa: E402
from demo.world import STYLES  # noqa: E402
from loco_core.diffusers_host.demo_model import SCORER, demo_pipeline  # noqa: E402
from loco_core.diffusers_host.engine import DiffusersEngine  # noqa: E402
from loco_core.files import write_text  # noqa: E402
from loco_core.localization.plan import SearchPlan  # noqa: E402
from loco_core.localization.score_table import Cell, Evaluate, ScoreTable  # noqa: E402
from loco_core.localization.search import confirm, find_window  # noqa: E402
from loco_core.localization.strategies import Effort  # noqa: E402
from loco_core.localization.verdict import Kind, judge, shows  # noqa: E402
from loco_core.models.engine import Intervention, Row, Sampling  # noqa: E402
from loco_core.models.layers import LayerSet, windows  # noqa: E402
from loco_core.prompts import Attribute, PromptPair  # noqa: E402
from loco_core.scoring.intervals import estimate  # noqa: E402
from loco_core.scoring.open_clip_scorer import load_scorer  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results"
SAMPLING = Sampling(STEPS, GUIDANCE, "euler", "linspace", SIZE, SIZE)
IMAGES, SEARCHES = 32, 450
DIFFICULTIES = (0.7, 0.9, 0.99)
PLANTED = {Attribute.STYLE: LayerSet((8, 9), 16), Attribute.FACT: LayerSet((6, 7), 16)}
SDXL_LAYERS, SDXL_SIZES = 70, (5, 3)
COVERED, TIMES_LARGER, COVERAGE_DRAWS = (8, 16), 10, 1000
RUNS, BATCH = 3, 16


# --- replayed searches ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """One search to replay: each window's mean effect, before it is scaled, and its noise in every image [windows,
    images]; the last window is all layers.
    """

    concept: str
    tried: tuple[LayerSet, ...]
    planted: LayerSet
    effects: np.ndarray
    noise: np.ndarray

    def best(self, scale: float) -> LayerSet:
        """What exhaustive search finds."""
        return self.tried[int((scale * self.effects + self.noise.mean(1))[:-1].argmax())]


def demo_effects() -> dict[str, tuple[LayerSet, np.ndarray]]:
    """Of every style and fact, the planted window and the effects [windows, images]; the last window is all layers."""
    found = {}
    for name, (attribute, _) in concepts().items():
        table = read_tables().get(f"{name}/{QUICK}")
        if table is not None and attribute in PLANTED:
            sign = 1 if attribute is Attribute.FACT else -1
            found[name] = (PLANTED[attribute], sign * (table[1:] - table[:1]).reshape(len(table) - 1, -1).astype(float))
    return found


def demo_cases(random: np.random.Generator) -> list[Case]:
    cases, found = [], list(demo_effects().items())
    for number in range(SEARCHES):
        concept, (planted, effects) = found[number % len(found)]
        drawn = effects[:, random.integers(0, effects.shape[1], IMAGES)]
        mean = effects.mean(1)
        cases.append(Case(concept, (*NARROW, ALL), planted, mean, drawn - mean[:, None]))
    return cases


@dataclass(frozen=True)
class Noise:
    """Of one concept: what varies in windows without an effect, and in the planted one as a share of its effect; how
    far the latter is common to the windows of an image.
    """

    background: float
    of_effect: float
    common: float


def measured_noise() -> dict[str, Noise]:
    found = {}
    for concept, (planted, effects) in demo_effects().items():
        place = NARROW.index(planted)
        apart = [i for i, window in enumerate(NARROW) if not set(window) & set(planted)]
        near = max((place - 1, place + 1), key=lambda i: effects[i].mean())
        together = np.corrcoef(effects[place], effects[near])[0, 1]
        background = float(np.sqrt(effects[apart].var(1, ddof=1).mean())) / effects[place].mean()
        of_effect = effects[place].std(ddof=1) / effects[place].mean()
        found[concept] = Noise(background, float(of_effect), float(np.clip(together, 0, 1)))
    return found


def sdxl_cases(random: np.random.Generator, size: int) -> list[Case]:
    tried, found = windows(SDXL_LAYERS, size), list(measured_noise().items())
    whole = LayerSet(tuple(range(SDXL_LAYERS)), SDXL_LAYERS)
    cases = []
    for number in range(SEARCHES):
        (concept, noise), planted = found[number % len(found)], tried[random.integers(len(tried))]
        effects = np.array([len(set(window) & set(planted)) / size for window in tried] + [1.0])
        common, own = random.standard_normal(IMAGES), random.standard_normal((len(effects), IMAGES))
        varying = np.sqrt(noise.common) * common + np.sqrt(1 - noise.common) * own
        background = noise.background * random.standard_normal((len(effects), IMAGES))
        varying *= noise.of_effect * effects[:, None]
        cases.append(Case(concept, (*tried, whole), planted, effects, varying + background))
    return cases


def scale_for(cases: Sequence[Case], share: float) -> float:
    """By what to multiply the effects of one concept for exhaustive search to be right in this share of its cases."""
    low, high = 0.0, 1.0
    while np.mean([case.best(high) == case.planted for case in cases]) < share and high < 64:
        high *= 2
    for _ in range(30):
        middle = (low + high) / 2
        right = np.mean([case.best(middle) == case.planted for case in cases])
        low, high = (low, middle) if right >= share else (middle, high)
    return high


def raced(case: Case, scale: float, effort: Effort) -> tuple[bool, float]:
    """Whether the race is right, and its cost as a share of the exhaustive search's images."""
    scores = dict(zip(case.tried, scale * case.effects[:, None] + case.noise, strict=True))
    spent = []

    def evaluate(cells: Sequence[Cell]) -> np.ndarray:
        spent.extend(cell.steps / STEPS for cell in cells)
        return np.array([scores[cell.window][cell.image] if cell.window else 0.0 for cell in cells])

    tried, layer_count = list(case.tried[:-1]), case.planted.layer_count
    pair, size = PromptPair("the concept", "the target"), len(case.planted)
    plan = SearchPlan((pair,), tuple(range(IMAGES)), Attribute.FACT, size, SAMPLING, effort)
    table = ScoreTable(evaluate, IMAGES, plan.steps, plan.sign, layer_count)
    table.ask({table.whole: 2 * len(concepts()["woodcut"][1])})
    found = find_window(table, plan, tried, budget(plan, layer_count))
    judge(table, found, tried, len(plan.pairs))
    confirm(evaluate, plan, table, found)
    return found == case.planted, sum(spent) / ((1 + len(tried)) * IMAGES)


def budget(plan: SearchPlan, layer_count: int) -> float:
    """What a search gives its race to spend, in images of all steps."""
    return plan.most_images(text_layers(layer_count, 0)) - plan.reserve


def replay(name: str, cases: Sequence[Case]) -> list[dict]:
    rows = []
    for share in DIFFICULTIES:
        groups: dict[str, list[Case]] = {}
        for case in cases:
            groups.setdefault(case.concept, []).append(case)
        scales = {concept: scale_for(group, share) for concept, group in groups.items()}
        exhaustive = float(np.mean([case.best(scales[case.concept]) == case.planted for case in cases]))
        row = {"tables": name, "difficulty": share, "scale": round(float(np.mean(list(scales.values()))), 4)}
        row["exhaustive"] = round(exhaustive, 4)
        for effort in (Effort.FAST, Effort.BALANCED):
            right, cost = np.mean([raced(case, scales[case.concept], effort) for case in cases], 0)
            row |= {str(effort): round(float(right), 4), f"{effort}_cost": round(float(cost), 4)}
        rows.append(row)
        say(json.dumps(row))
    return rows


def verdicts() -> dict[str, str]:
    """Of every concept as it is, by a balanced search on the stored scores: the layers found and the verdict."""
    said = {}
    for name, (attribute, pairs) in concepts().items():
        scores = read_tables()[f"{name}/{QUICK}"]
        plan = SearchPlan(pairs, tuple(range(scores.shape[2])), attribute, 2, SAMPLING)
        table = ScoreTable(stored(scores), len(plan.images), QUICK, plan.sign, 16)
        if not shows(table, len(pairs)):
            said[name] = str(Kind.NO_EFFECT)
            continue
        found = find_window(table, plan, NARROW, budget(plan, 16))
        verdict = judge(table, found, NARROW, len(pairs))
        said[name] = f"{verdict.kind}: layers {found}, {verdict.share:.0%} of all layers' effect"
    return said


def stored(scores: np.ndarray) -> Evaluate:
    """Scores [1 + windows, pairs, seeds] as a search asks for them."""
    place = {None: 0} | {window: 1 + i for i, window in enumerate((*NARROW, ALL))}
    in_turns = scores.swapaxes(1, 2).reshape(len(scores), -1)
    return lambda cells: np.array([in_turns[place[cell.window], cell.image] for cell in cells])


def steps_agree() -> dict[str, float]:
    """How alike the windows' mean effects are in images of few steps and of all, over concepts: Pearson's r, at least
    and in the mean; and in how many concepts the same window is best.
    """
    correlations, same = [], []
    tables = read_tables()
    for name, (attribute, _) in concepts().items():
        full, quick = tables.get(f"{name}/{STEPS}"), tables.get(f"{name}/{QUICK}")
        if full is not None and quick is not None and attribute in PLANTED:
            seeds = full.shape[2]
            means = [(t[1:16] - t[:1])[..., :seeds].mean((1, 2)) for t in (full, quick)]
            correlations.append(np.corrcoef(*means)[0, 1])
            same.append(np.abs(means[0]).argmax() == np.abs(means[1]).argmax())
    return {
        "least": float(min(correlations)),
        "mean": float(np.mean(correlations)),
        "same_window": float(np.mean(same)),
    }


def coverage(random: np.random.Generator) -> dict[str, float]:
    """How often the interval from so many images holds the mean of TIMES_LARGER times as many others, by window."""
    held = {}
    for name, asked in MANY.items():
        table = read_tables()[f"{name}/many"].astype(float)
        pairs, seeds = table.shape[1:]
        for (place, window), images in itertools.product(enumerate(asked), COVERED):
            few = images // pairs
            effects = (table[1 + place] - table[0]).T  # [seeds, pairs]: in turns
            hits = []
            for _ in range(COVERAGE_DRAWS):
                order = random.permutation(seeds)
                small, large = effects[order[:few]], effects[order[few : few * (1 + TIMES_LARGER)]]
                interval = estimate(small.ravel(), pairs)
                hits.append(interval.low <= large.mean() <= interval.high)
            held[f"{name}, layers {window}, {images} images"] = round(float(np.mean(hits)), 4)
    return held


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


def say(line: str) -> None:
    print(line, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--replay", action="store_true", help="without the timings; writes no file")
    only_replay = parser.parse_args().replay
    comfyui = os.environ.get("COMFYUI_PATH", "")
    if not only_replay and not comfyui:
        sys.exit("COMFYUI_PATH names no ComfyUI folder: the overhead needs one")
    random = np.random.default_rng(0)
    say(f"{len(STYLES)} styles and the facts, {IMAGES} images for each window, {SEARCHES} searches")
    agree = steps_agree()
    say(f"effects in images of {QUICK} and of {STEPS} steps: {json.dumps(agree)}")
    judged = verdicts()
    say(json.dumps(judged, indent=1))
    rows = {16: replay("demo, 16 layers", demo_cases(random)), 70: []}
    for size in SDXL_SIZES:
        rows[70] += replay(f"simulated, 70 layers, windows of {size}", sdxl_cases(random, size))
    held = coverage(random)
    say(json.dumps(held))
    summary = {}
    for layers, own in rows.items():
        hard = [row for row in own if row["difficulty"] >= 0.9]
        summary[f"race_accuracy_{layers}"] = round(min(row["balanced"] / row["exhaustive"] for row in hard), 4)
        summary[f"race_cost_{layers}"] = max(row["balanced_cost"] for row in hard)
    if not only_replay:
        summary["packed_speedup"] = packed_speedup()
        overhead = patch_overhead(*host_in_process(comfyui))
        summary["patch_overhead"] = round(overhead.ratio, 4)
    summary["coverage_95"] = round(float(np.mean(list(held.values()))), 4)
    if not only_replay:
        content = {
            "summary": summary,
            "replayed": [*rows[16], *rows[70]],
            "steps": agree,
            "coverage": held,
            "verdicts": judged,
            "overhead": asdict(overhead),
        }
        write_text(RESULTS / "search.json", json.dumps(content, indent=1) + "\n")
    say(json.dumps(summary))


if __name__ == "__main__":
    main()
