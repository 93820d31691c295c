"""The inputs by which a person says how images are made, the same on every node that compares images."""

from __future__ import annotations

import comfy.samplers
from comfy_api.latest import io

from ..host.samplers import samplers

# The host's seeds are below it.
SEEDS = 2**64


def seeds_from(seed: int, count: int) -> tuple[int, ...]:
    """seed, seed + 1, and so on; 0 follows the largest."""
    return tuple((seed + place) % SEEDS for place in range(count))


def sampling_inputs() -> list[io.Input]:
    return [
        io.Int.Input(
            "seed",
            default=0,
            min=0,
            max=SEEDS - 1,
            control_after_generate="fixed",
            tooltip="The first seed. All comparisons are made on the same seeds. Keep it fixed, or every "
            "run begins anew.",
        ),
        io.Int.Input(
            "seed_count",
            default=4,
            min=1,
            max=64,
            tooltip="Images per prompt: seed, seed + 1, and so on. More images, surer answer.",
        ),
        io.Int.Input("steps", default=20, min=1, max=1000, tooltip="Sampling steps of every image."),
        io.Float.Input("cfg", default=7.5, min=1.0, max=100.0, step=0.1, tooltip="Classifier-free guidance scale."),
        io.Combo.Input(
            "sampler_name",
            options=samplers(),
            default="euler",
            tooltip="Ancestral and SDE samplers draw each image's noise by its own seed. dpm_adaptive is left out: it "
            "chooses its steps for a whole batch.",
        ),
        io.Combo.Input(
            "scheduler",
            options=comfy.samplers.KSampler.SCHEDULERS,
            default="normal",
            tooltip="The noise schedule of every image.",
        ),
        io.Int.Input("width", default=512, min=64, max=4096, step=8, tooltip="Image width in pixels."),
        io.Int.Input("height", default=512, min=64, max=4096, step=8, tooltip="Image height in pixels."),
        io.Int.Input(
            "batch_rows",
            default=8,
            min=1,
            max=1024,
            tooltip="Images made in one sampler call. As many as your memory takes is fastest; where "
            "less is free, fewer are made at once.",
        ),
    ]
