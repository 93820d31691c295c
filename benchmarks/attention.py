"""Two rankings of a planted transformer's blocks, the probe's shares and Zarei's score by attention, beside the truth.

    COMFYUI_PATH=... python benchmarks/attention.py FOLDER   # where demo/train.py --transformer has put its own

Every style and fact is probed alone, block by block, with the demo's four pairs of prompts. first: how often the best
block is a planted one. all_first: how often the planted ones are ahead of all others. Their places count from 1.
agreement: Spearman's correlation of the two rankings. rows: of the denoiser, for both; attention_rows: for that by
attention alone, beside the runs to the noise levels. Writes results/attention.json; the last line of the output is one
line of JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[1]
sys.path[:] = [*(path for path in sys.path if path != str(ROOT / "benchmarks")), str(ROOT)]

import numpy as np  # noqa: E402 - the path comes first
import torch  # noqa: E402
from scipy import stats  # noqa: E402

from benchmarks.processes import say  # noqa: E402
from benchmarks.score_tables import concepts  # noqa: E402
from benchmarks.search_overhead import host_in_process  # noqa: E402
from demo.training.plan import planting_of  # noqa: E402
from loco_core.files import write_text  # noqa: E402
from loco_core.prompts import Attribute, PromptPair  # noqa: E402

RESULT = ROOT / "benchmarks" / "results" / "attention.json"
STEPS, GUIDANCE, SIZE, ROWS = 20, 2.0, 128, 48


@dataclass(frozen=True)
class Ranked:
    """A concept's blocks, the planted ones' places in each ranking, and the share and score of every block."""

    concept: str
    planted: tuple[int, ...]
    places_by_share: tuple[int, ...]
    places_by_attention: tuple[int, ...]
    agreement: float
    rows: int
    attention_rows: int
    shares: tuple[float, ...]
    attention: tuple[float, ...]


def places(values: np.ndarray, planted: tuple[int, ...]) -> tuple[int, ...]:
    """Of the planted blocks, from 1 for that of the largest value."""
    order = np.argsort(-values).tolist()
    return tuple(sorted(order.index(block) + 1 for block in planted))


@torch.inference_mode()
def ranked(
    pack: Callable[[str], ModuleType], engine: object, concept: str, pairs: tuple[PromptPair, ...], planted: tuple
) -> Ranked:
    sampling = pack("loco_core.models.engine").Sampling(STEPS, GUIDANCE, "euler", "normal", SIZE, SIZE)
    plan = pack("loco_core.localization.plan").ProbePlan(pairs, (0,), sampling)
    single = pack("loco_core.models.layers").windows(len(engine.layers), 1)
    probe = pack("loco_core.localization.probe").Prober(engine, plan, ROWS).measure(single)
    shares, attention = np.array([probe.share(block) for block in single]), probe.attention
    return Ranked(
        concept=concept,
        planted=planted,
        places_by_share=places(shares, planted),
        places_by_attention=places(attention, planted),
        agreement=round(float(stats.spearmanr(shares, attention).statistic), 4),
        rows=probe.rows,
        attention_rows=len(plan.runs) * len(plan.steps),
        shares=tuple(shares.round(4).tolist()),
        attention=tuple(attention.round(4).tolist()),
    )


def summary(made: list[Ranked]) -> dict[str, object]:
    """Shares of the concepts, and the mean agreement."""
    figures: dict[str, object] = {"concepts": len(made)}
    for name in ("places_by_share", "places_by_attention"):
        own = [getattr(one, name) for one in made]
        first = [min(found) == 1 for found in own]
        every = [max(found) == len(found) for found in own]
        figures[name.removeprefix("places_")] = {"first": np.mean(first).item(), "all_first": np.mean(every).item()}
    return figures | {"agreement": round(float(np.mean([one.agreement for one in made])), 4)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    pack, demo = host_in_process(os.environ.get("COMFYUI_PATH") or str(Path.home() / "comfy" / "ComfyUI"))
    import comfy.sd

    from demo.training.assemble import TRANSFORMER

    model = comfy.sd.load_diffusion_model(str(folder / TRANSFORMER))
    layers = pack("nodes.host.layers").read_layers(model)
    engine = pack("nodes.host.engine").ComfyEngine(model, demo.clip, None, layers)
    planting, made = planting_of(folder), []
    for concept, (attribute, pairs) in concepts().items():
        if attribute is not Attribute.OBJECT:
            planted = planting.style if attribute is Attribute.STYLE else planting.fact
            made.append(ranked(pack, engine, concept, pairs, planted))
            own = made[-1]
            say(f"{concept}: planted {planted}, by share {own.places_by_share}, by attention {own.places_by_attention}")
    figures = summary(made)
    write_text(RESULT, json.dumps(figures | {"cases": [asdict(one) for one in made]}, indent=1) + "\n")
    say(json.dumps(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
