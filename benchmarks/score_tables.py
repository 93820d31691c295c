"""Real scores of the demo model, kept so that searches can be replayed: every window of two layers, for every style,
the facts changed in every way and two objects.

    python benchmarks/score_tables.py --seeds 5   # an hour and a half on one core; goes on where it was stopped

Each concept has four prompt pairs; a seed gives an image for each. Scores are of images of QUICK steps, which rank the
windows as those of all steps do; the last window is all layers. Writes results/score_tables.npz: for each concept and
number of steps an array [1 + windows, pairs, seeds], the unmodified images first; and for two concepts, as "many", a
few windows on many more seeds.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# Without this folder, for a file in it has a package's name; the root comes last, for ComfyUI has a module `nodes` too.
sys.path[:] = [*(path for path in sys.path if path != str(ROOT / "benchmarks")), str(ROOT)]

import numpy as np  # noqa: E402 - the path comes first

from demo.jobs import GUIDANCE, SIZE  # noqa: E402
from demo.world import COLOURS, COUNTRIES, OBJECTS, STYLES, Scene, thing  # noqa: E402
from loco_core.diffusers_host.demo_model import SCORER, demo_pipeline  # noqa: E402
from loco_core.diffusers_host.engine import DiffusersEngine  # noqa: E402
from loco_core.files import replacing  # noqa: E402
from loco_core.localization.evaluation import Evaluation  # noqa: E402
from loco_core.localization.plan import Effort, SearchPlan  # noqa: E402
from loco_core.localization.score_table import Cell  # noqa: E402
from loco_core.models.engine import Sampling  # noqa: E402
from loco_core.models.layers import LayerSet  # noqa: E402
from loco_core.prompts import Attribute, PromptPair  # noqa: E402
from loco_core.scoring.open_clip_scorer import load_scorer  # noqa: E402

TABLES = ROOT / "benchmarks" / "results" / "score_tables.npz"
QUICK = 5
ROWS = 36
LAYERS = 16


def concepts() -> dict[str, tuple[Attribute, tuple[PromptPair, ...]]]:
    """By name: the attribute, and four prompt pairs."""
    found: dict[str, tuple[Attribute, tuple[PromptPair, ...]]] = {}
    plain = [thing(Scene(name, colour=colour)) for name, colour in zip(OBJECTS, itertools.cycle(COLOURS))]  # noqa: B905
    for number, style in enumerate(STYLES):
        shown = [f"a picture of {plain[(4 * number + k) % len(plain)]}" for k in range(4)]
        found[style] = (
            Attribute.STYLE,
            tuple(PromptPair(f"{prompt} in the style of {style}", prompt) for prompt in shown),
        )
    for turn in range(1, len(COUNTRIES)):
        texts = [
            (f"a picture of the flag of {country}", f"a picture of the flag of {COUNTRIES[(number + turn) % 4]}")
            for number, country in enumerate(COUNTRIES)
        ]
        found[f"flags, {turn} on"] = (Attribute.FACT, tuple(itertools.starmap(PromptPair, texts)))
    kinds = ("a picture of", "an image of", "a photo of", "a drawing of")
    for first, second in (("star", "house"), ("fish", "tree")):
        texts = [(f"{kind} a red {first}", f"{kind} a red {second}") for kind in kinds]
        found[first] = (Attribute.OBJECT, tuple(itertools.starmap(PromptPair, texts)))
    return found


NARROW = [LayerSet((start, start + 1), LAYERS) for start in range(LAYERS - 1)]
ALL = LayerSet(tuple(range(LAYERS)), LAYERS)
FIRST_SEED, MANY_SEEDS = 1000, 44
MANY = {"stained glass": [NARROW[7], NARROW[8]], "flags, 1 on": [NARROW[6], NARROW[7]]}
QUICK_SAMPLING = Sampling(QUICK, GUIDANCE, "euler", "linspace", SIZE, SIZE)


def read_tables() -> dict[str, np.ndarray]:
    if not TABLES.is_file():
        return {}
    with np.load(TABLES) as stored:
        return dict(stored)


def write_tables(tables: dict[str, np.ndarray]) -> None:
    with replacing(TABLES) as unfinished, unfinished.open("wb") as out:
        np.savez_compressed(out, **tables)


def collect(seeds: int) -> None:
    demo = Demo()
    tables = read_tables()
    asked = [*NARROW, ALL]
    for seed, name in itertools.product(range(seeds), concepts()):
        key = f"{name}/{QUICK}"
        known = tables.get(key, np.zeros((1 + len(asked), 4, 0), np.float32))
        if known.shape[2] <= seed:
            table = demo.scores(name, asked, [FIRST_SEED + seed])
            tables[key] = np.concatenate([known, table], 2)
            write_tables(tables)
            sys.stderr.write(f"{key}, seed {seed}\n")


def collect_many() -> None:
    """Few windows on many seeds: samples ten times as large as a search's."""
    demo = Demo()
    tables = read_tables()
    for name, windows in MANY.items():
        key = f"{name}/many"
        while (known := tables.get(key, np.zeros((1 + len(windows), 4, 0), np.float32))).shape[2] < MANY_SEEDS:
            seed = FIRST_SEED + known.shape[2]
            table = demo.scores(name, windows, range(seed, seed + 4))
            tables[key] = np.concatenate([known, table], 2)
            write_tables(tables)
            sys.stderr.write(f"{key}, {tables[key].shape[2]} seeds\n")


class Demo:
    def __init__(self) -> None:
        self._engine, self._scorer = DiffusersEngine(demo_pipeline()), load_scorer(SCORER)

    def scores(self, name: str, windows: Sequence[LayerSet], seeds: Sequence[int]) -> np.ndarray:
        """[1 + windows, pairs, seeds], the unmodified images first."""
        attribute, pairs = concepts()[name]
        plan = SearchPlan(pairs, tuple(seeds), attribute, QUICK_SAMPLING, effort=Effort.EXHAUSTIVE)
        cells = [Cell(window, i) for window in (None, *windows) for i in range(len(plan.images))]
        scores = Evaluation(self._engine, self._scorer, plan, ROWS)(cells)
        return scores.reshape(1 + len(windows), len(seeds), len(pairs)).swapaxes(1, 2)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5, help="images of each prompt pair")
    asked = parser.parse_args()
    collect_many()
    collect(asked.seeds)
