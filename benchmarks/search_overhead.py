"""What a search's patches cost: sampling with an intervention on every row, against plain sampling of as many rows.

On the demo model, in a ComfyUI in this process: COMFYUI_PATH=... python -m benchmarks.search_overhead
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from types import ModuleType, SimpleNamespace

import torch

from benchmarks.comfy_in_process import host_in_process

ROWS, STEPS, GUIDANCE, SIZE, RUNS = 16, 5, 2.0, 128, 9
CONCEPT, TARGET = "a picture of a red star in the style of woodcut", "a picture of a red star"


@dataclass(frozen=True)
class Overhead:
    """patched, plain: CPU seconds, the median of RUNS each; ratio: the median of each run's patched by its plain.

    CPU seconds, so that what else the machine does counts little; of one thread, as a waiting second would count too.
    """

    patched: float
    plain: float
    ratio: float


@torch.inference_mode()
def patch_overhead(pack: Callable[[str], ModuleType], demo: SimpleNamespace, rows: int = ROWS) -> Overhead:
    """Samples latents of `rows` images, with and without patches, in turn: every row gives another window a target."""
    import comfy.sample

    torch.set_num_threads(1)
    core, layers, adapter = pack("loco_core.models.engine"), pack("loco_core.models.layers"), pack("nodes.host.engine")
    conditioning_of = pack("nodes.host.injection").conditioning_of
    text_layers = pack("nodes.host.layers").read_layers(demo.model)
    engine = adapter.ComfyEngine(demo.model, demo.clip, demo.vae, text_layers)
    concept, target, empty = engine.encode([CONCEPT, TARGET, ""])
    windows = layers.windows(len(engine.layers), 2)
    asked = [core.Row(concept, seed, core.Intervention(windows[seed % len(windows)], target)) for seed in range(rows)]
    sampling = core.Sampling(STEPS, GUIDANCE, "euler", "normal", SIZE, SIZE)
    positive = conditioning_of([concept] * rows)
    negative = conditioning_of([empty])
    latent = torch.zeros(rows, 4, SIZE // 8, SIZE // 8)
    noise = torch.cat([comfy.sample.prepare_noise(latent[:1], row.seed) for row in asked])
    sampler = adapter.row_sampler(sampling.sampler, [row.seed for row in asked])

    def patched() -> torch.Tensor:
        return engine._sample(demo.model, asked, sampling, sampler)

    def plain() -> torch.Tensor:
        how = (STEPS, GUIDANCE, "euler", "normal")
        return comfy.sample.sample(demo.model, noise, *how, positive, negative, latent, disable_pbar=True, seed=0)

    def seconds(sample: Callable[[], torch.Tensor]) -> float:
        begun = time.process_time()
        sample()
        return time.process_time() - begun

    patched(), plain()  # what is loaded once
    runs = [(seconds(patched), seconds(plain)) for _ in range(RUNS)]
    times = [statistics.median(side) for side in zip(*runs, strict=True)]
    return Overhead(*times, statistics.median(one / other for one, other in runs))


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asdict(patch_overhead(*host_in_process(os.environ["COMFYUI_PATH"])))) + "\n")
