"""What a probe takes in SDXL's shape: block for block the real one, 70 text layers, but of random weights.

Once as it is, where no window stands out; and once with a window that does: all other layers read next to nothing.
Narrow, for benchmarks/search.py; and in full size, at 1024 x 1024 in half precision, on a GPU:

    python -m benchmarks.random_xl
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from types import MappingProxyType, SimpleNamespace
from typing import Any

import diffusers
import torch

from benchmarks.exhaustive_replays import plan_of
from loco_core.diffusers_host.engine import DiffusersEngine
from loco_core.localization.localize import first_size, localize
from loco_core.localization.plan import SearchPlan
from loco_core.localization.probe import Prober
from loco_core.localization.verdict import Kind
from loco_core.models.engine import Chunk, Row, TextEmbedding
from loco_core.models.layers import LayerSet

TOKENS, ROWS = 77, 36
SHAPE = MappingProxyType(
    {
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "transformer_layers_per_block": (1, 2, 10),
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
    }
)
# `projection_class_embeddings_input_dim`: of the pooled embedding, and of six numbers that say the image's size.
NARROW = {
    **SHAPE,
    "block_out_channels": (32, 64, 128),
    "attention_head_dim": (1, 2, 4),
    "cross_attention_dim": 64,
    "addition_time_embed_dim": 8,
    "projection_class_embeddings_input_dim": 32 + 6 * 8,
}
FULL_SIZE = {
    **SHAPE,
    "block_out_channels": (320, 640, 1280),
    "attention_head_dim": (5, 10, 20),
    "cross_attention_dim": 2048,
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 1280 + 6 * 256,
}
FULL_SIDE = 1024
# Where the paper found SDXL's styles; what the values of all other layers are multiplied by.
PLANTED, FAINT = LayerSet((45, 46, 47), 70), 0.02


class RandomXL(DiffusersEngine):
    """An engine on it. A prompt's embedding is random, and the same for the same prompt."""

    def __init__(self, size: Mapping[str, Any], planted: LayerSet | None, device: str = "cpu") -> None:
        torch.manual_seed(0)
        with torch.device(device):
            unet, vae = diffusers.UNet2DConditionModel(**size), diffusers.AutoencoderTiny()
        if device != "cpu":
            unet.half()
        super().__init__(SimpleNamespace(unet=unet, vae=vae, scheduler=diffusers.EulerDiscreteScheduler()))
        self._widths = (
            size["cross_attention_dim"],
            size["projection_class_embeddings_input_dim"] - 6 * size["addition_time_embed_dim"],
        )
        for layer in self.layers if planted else ():
            if layer.index not in planted:
                unet.get_submodule(self.layers.modules[layer.index]).to_v.weight.data.mul_(FAINT)

    def encode(self, prompts):
        embeddings, (width, pooled_width) = [], self._widths
        for prompt in prompts:
            drawn = torch.Generator().manual_seed(sum(prompt.encode()))
            tokens, pooled = torch.randn(TOKENS, width, generator=drawn), torch.randn(pooled_width, generator=drawn)
            embeddings.append(TextEmbedding(prompt, tokens, (Chunk(0, 1, 9, TOKENS),), pooled))
        return embeddings


@dataclass(frozen=True)
class ProbeCost:
    """rows, seconds: of a probe in the default setting. image_rows, image_seconds: of an image of the same size.
    exhaustive_rows: of the search by images of every window.
    """

    kind: Kind
    layers: str
    rows: int
    seconds: float
    image_rows: int
    image_seconds: float
    exhaustive_rows: int


def probe_cost(plan: SearchPlan, engine: RandomXL) -> ProbeCost:
    sampling = plan.sampling
    concept, _ = engine.encode([plan.pairs[0].concept, plan.pairs[0].target])
    engine.generate([Row(concept, 0)], sampling)
    begun = time.perf_counter()
    engine.generate([Row(concept, 0)], sampling)
    between = time.perf_counter()
    found = localize(Prober(engine, plan.probe, ROWS), engine.layers)
    ended = time.perf_counter()
    image_rows = sampling.steps * sampling.rows_per_step
    windows = len(engine.layers) - first_size(engine.layers, plan.window_size) + 1
    return ProbeCost(
        kind=found.kind,
        layers=str(found.layers),
        rows=found.probe.rows,
        seconds=round(ended - between, 2),
        image_rows=image_rows,
        image_seconds=round(between - begun, 2),
        exhaustive_rows=(1 + windows) * len(plan.pairs) * len(plan.seeds) * image_rows,
    )


def main() -> None:
    if not torch.cuda.is_available():
        sys.exit("full size needs a GPU; benchmarks/search.py measures the narrow one")
    plan = plan_of("woodcut")
    plan = replace(plan, sampling=replace(plan.sampling, width=FULL_SIDE, height=FULL_SIDE))
    cost = probe_cost(plan, RandomXL(FULL_SIZE, PLANTED, "cuda"))
    sys.stdout.write(json.dumps({"gpu": torch.cuda.get_device_name(), **asdict(cost)}) + "\n")


if __name__ == "__main__":
    main()
