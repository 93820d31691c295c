"""What a probe takes in SDXL's shape: block for block the real one, 70 text layers, but narrow and of random weights.

Once as it is, where no window stands out; and once with a window that does: all other layers read next to nothing.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from types import SimpleNamespace

import diffusers
import torch

from loco_core.diffusers_host.engine import DiffusersEngine
from loco_core.localization.localize import first_size, localize
from loco_core.localization.plan import SearchPlan
from loco_core.localization.probe import Prober
from loco_core.localization.verdict import Kind
from loco_core.models.engine import Chunk, Row, TextEmbedding
from loco_core.models.layers import LayerSet

WIDTH, POOLED, TOKENS, ROWS = 64, 32, 77, 36
UNET = {
    "sample_size": 16,
    "block_out_channels": (32, 64, 128),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 2, 10),
    "attention_head_dim": (1, 2, 4),
    "cross_attention_dim": WIDTH,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 8,
    "projection_class_embeddings_input_dim": POOLED + 6 * 8,
}
# Where the paper found SDXL's styles; what the values of all other layers are multiplied by.
PLANTED, FAINT = LayerSet((45, 46, 47), 70), 0.02


class NarrowXL(DiffusersEngine):
    """An engine on it. A prompt's embedding is random, and the same for the same prompt."""

    def __init__(self, planted: LayerSet | None) -> None:
        torch.manual_seed(0)
        unet, vae = diffusers.UNet2DConditionModel(**UNET), diffusers.AutoencoderTiny()
        super().__init__(SimpleNamespace(unet=unet, vae=vae, scheduler=diffusers.EulerDiscreteScheduler()))
        for layer in self.layers if planted else ():
            if layer.index not in planted:
                unet.get_submodule(self.layers.modules[layer.index]).to_v.weight.data.mul_(FAINT)

    def encode(self, prompts):
        embeddings = []
        for prompt in prompts:
            drawn = torch.Generator().manual_seed(sum(prompt.encode()))
            tokens, pooled = torch.randn(TOKENS, WIDTH, generator=drawn), torch.randn(POOLED, generator=drawn)
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


def probe_cost(plan: SearchPlan, planted: LayerSet | None) -> ProbeCost:
    engine, sampling = NarrowXL(planted), plan.sampling
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
