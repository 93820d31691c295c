"""Real scores of the demo model, kept so that searches can be replayed: every window of two layers, for every style,
the facts changed in every way and two objects.

    python benchmarks/score_tables.py --seeds 5   # an hour and a half on one core; goes on where it was stopped

Each concept has four prompt pairs; a seed gives an image for each. Scores are of images of QUICK steps, the
last window being all layers; for the first seed also of images of the demo's own number of steps. Writes results/score_tables.npz: for each concept
and number of steps an array [1 + windows, pairs, seeds], the unmodified images first.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT))

import numpy as np  # noqa: E402 - the path comes first

from demo.jobs import GUIDANCE, SIZE, STEPS  # noqa: E402
from demo.world import COLOURS, COUNTRIES, OBJECTS, STYLES, Scene, thing  # noqa: E402
from loco_core.demo_pipeline import SCORER, demo_pipeline  # noqa: E402
from loco_core.diffusers_engine import DiffusersEngine  # noqa: E402
from loco_core.engine import Intervention, Row, Sampling  # noqa: E402
from loco_core.files import replacing  # noqa: E402
from loco_core.layers import LayerSet  # noqa: E402
from loco_core.prompts import PromptPair  # noqa: E402
from loco_core.scorer import load_scorer  # noqa: E402

TABLES = ROOT / "benchmarks" / "results" / "score_tables.npz"
QUICK = 5
ROWS = 34
FULL_SEEDS = 1
"""Seeds with images of all steps: enough to see that they rank the windows as those of QUICK steps do."""
LAYERS = 16


def concepts() -> dict[str, tuple[str, tuple[PromptPair, ...]]]:
    """By name: the attribute, and four prompt pairs."""
    found: dict[str, tuple[str, tuple[PromptPair, ...]]] = {}
    plain = [thing(Scene(name, colour=colour)) for name, colour in zip(OBJECTS, itertools.cycle(COLOURS))]  # noqa: B905
    for number, style in enumerate(STYLES):
        shown = [f"a picture of {plain[(4 * number + k) % len(plain)]}" for k in range(4)]
        found[style] = ("style", tuple(PromptPair(f"{prompt} in the style of {style}", prompt) for prompt in shown))
    for turn in range(1, len(COUNTRIES)):
        texts = [
            (f"a picture of the flag of {country}", f"a picture of the flag of {COUNTRIES[(number + turn) % 4]}")
            for number, country in enumerate(COUNTRIES)
        ]
        found[f"flags, {turn} on"] = ("fact", tuple(itertools.starmap(PromptPair, texts)))
    kinds = ("a picture of", "an image of", "a photo of", "a drawing of")
    for first, second in (("star", "house"), ("fish", "tree")):
        texts = [(f"{kind} a red {first}", f"{kind} a red {second}") for kind in kinds]
        found[first] = ("object", tuple(itertools.starmap(PromptPair, texts)))
    return found


NARROW = [LayerSet((start, start + 1), LAYERS) for start in range(LAYERS - 1)]
ALL = LayerSet(tuple(range(LAYERS)), LAYERS)
ASKED = {QUICK: [*NARROW, ALL], STEPS: NARROW}


def read_tables() -> dict[str, np.ndarray]:
    if not TABLES.is_file():
        return {}
    with np.load(TABLES) as stored:
        return dict(stored)


def write_tables(tables: dict[str, np.ndarray]) -> None:
    with replacing(TABLES) as unfinished, unfinished.open("wb") as out:
        np.savez_compressed(out, **tables)


def collect(seeds: int) -> None:
    engine, scorer = DiffusersEngine(demo_pipeline()), load_scorer(SCORER)
    tables = read_tables()
    for seed, (name, (attribute, pairs)), steps in itertools.product(range(seeds), concepts().items(), ASKED):
        key = f"{name}/{steps}"
        known = tables.get(key, np.zeros((1 + len(ASKED[steps]), len(pairs), 0), np.float32))
        if known.shape[2] > seed or (steps == STEPS and seed >= FULL_SEEDS):
            continue
        texts = dict.fromkeys(text for pair in pairs for text in (pair.concept, pair.target))
        read = dict(zip(texts, engine.encode(list(texts)), strict=True))
        jobs = list(itertools.product((None, *ASKED[steps]), pairs))
        rows = [
            Row(read[pair.concept], 1000 + seed, Intervention(window, read[pair.target]) if window else None)
            for window, pair in jobs
        ]
        against = [pair.target if attribute == "fact" else pair.concept for _, pair in jobs]
        sampling = Sampling(steps, GUIDANCE, "euler", "linspace", SIZE, SIZE)
        scores = []
        for start in range(0, len(rows), ROWS):
            images = engine.generate(rows[start : start + ROWS], sampling)
            scores.append(scorer.score(images, against[start : start + ROWS]).numpy())
        table = np.concatenate(scores).reshape(-1, len(pairs), 1)
        tables[key] = np.concatenate([known, table], 2)
        write_tables(tables)
        mean = table[1:16].mean((1, 2)) - table[0].mean()
        print(key, seed, table[0].mean().round(1), mean.round(1).tolist(), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5, help="images of each prompt pair")
    collect(parser.parse_args().seeds)
